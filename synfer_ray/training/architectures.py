"""The networks of a new bundle: Stable Diffusion's topology at the size of `ArchitectureConfig`."""

from typing import TYPE_CHECKING

from synfer_ray.config import ArchitectureConfig

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel


def new_autoencoder(config: ArchitectureConfig) -> "AutoencoderKL":
    """An untrained AutoencoderKL that halves the image once per entry of `vae_channels` but the first."""
    from diffusers import AutoencoderKL

    levels = len(config.vae_channels)
    return AutoencoderKL(
        sample_size=config.image_size,
        latent_channels=config.latent_channels,
        block_out_channels=tuple(config.vae_channels),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
    )


def new_unet(config: ArchitectureConfig) -> "UNet2DConditionModel":
    """An untrained U-Net with four resolutions and 16 cross-attention blocks, as in Stable Diffusion 1.x."""
    from diffusers import UNet2DConditionModel

    latent_size = config.image_size // 2 ** (len(config.vae_channels) - 1)
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=tuple(config.unet_channels),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        cross_attention_dim=config.text_width,
        attention_head_dim=config.attention_heads,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def new_weak_unet(config: ArchitectureConfig, unet: "UNet2DConditionModel") -> "UNet2DConditionModel":
    """An untrained small U-Net that reads and predicts what `unet` does."""
    from diffusers import UNet2DConditionModel

    levels = len(config.weak_channels)
    return UNet2DConditionModel(
        sample_size=unet.config.sample_size,
        in_channels=unet.config.in_channels,
        out_channels=unet.config.out_channels,
        block_out_channels=tuple(config.weak_channels),
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=1,
        cross_attention_dim=unet.config.cross_attention_dim,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def new_text_encoder(config: ArchitectureConfig, vocabulary_size: int, end_token: int) -> "CLIPTextModel":
    """An untrained CLIP text model for the bundle's own tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            projection_dim=config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.attention_heads,
            max_position_embeddings=config.text_length,
            bos_token_id=0,
            eos_token_id=end_token,
            pad_token_id=end_token,
        )
    )


def new_scheduler(config: ArchitectureConfig) -> "DDIMScheduler":
    """Stable Diffusion's noise schedule; v-prediction rescales it to zero terminal SNR (Lin et al. 2024)."""
    from diffusers import DDIMScheduler

    v_prediction = config.prediction_type == "v_prediction"
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=config.prediction_type,
        rescale_betas_zero_snr=v_prediction,
        timestep_spacing="trailing" if v_prediction else "leading",
        steps_offset=1,
    )
