"""The parts of a Stable Diffusion model, and the way from text and images to what its U-Net reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from synfer_ray.diffusion.attention import install_processors
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.errors import InputError, choose
from synfer_ray.storage.bundle import WEAK_UNET
from synfer_ray.storage.hub import MODEL_FILES, model_folder
from synfer_ray.storage.weights import load_model

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL, UNet2DConditionModel
    from diffusers.schedulers import DDIMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass
class Components:
    """A text-to-image model, frozen and in evaluation mode; its adapter, if any, is attached to `unet`.

    `weak_unet`, if any, is a worse denoiser of the same latents under the same conditions.
    """

    unet: "UNet2DConditionModel"
    vae: "AutoencoderKL"
    text_encoder: "CLIPTextModel"
    tokenizer: "CLIPTokenizer"
    scheduler: "DDIMScheduler"
    adapter: AUAdapter | None
    folder: str
    weak_unet: "UNet2DConditionModel | None" = None

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """The number type the models compute in."""
        return self.unet.dtype

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Returns (channels, height, width) of the latent of a square image.

        Raises:
            InputError: the autoencoder cannot reduce this size evenly.
        """
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        if image_size % factor:
            raise InputError(f"image size {image_size} is not a multiple of the autoencoder's {factor}")
        return self.unet.config.in_channels, image_size // factor, image_size // factor

    def context(self, prompt_embeds: Tensor, au_tokens: Tensor | None = None) -> Tensor:
        """Joins text [B, T, D] and AU tokens [B, N, D] into what the U-Net attends to.

        Without `au_tokens` the AU condition is null; a model without adapter reads the text alone.
        """
        if self.adapter is None:
            return prompt_embeds
        if au_tokens is None:
            au_tokens = self.adapter.null_tokens(len(prompt_embeds))
        return torch.cat([prompt_embeds, au_tokens.to(prompt_embeds.dtype)], dim=1)


def load_components(
    folder_or_id: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Components:
    """Loads a Stable Diffusion 1.x or 2.x model in diffusers layout.

    `au_adapter/` and `weak_unet/` come with it if they are there.

    Weights are read from safetensors only, no remote code runs, and every tensor must fit and be finite.
    Whatever sampler the folder names, its noise schedule is used with DDIM.

    Args:
        folder_or_id: a local folder, or the id of a repository on the Hugging Face hub.

    Raises:
        InputError: the model is of another family, a folder or file is missing or damaged, weights do not fit
            or are not finite, or the parts do not belong together.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = model_folder(str(folder_or_id))
    for name in MODEL_FILES:
        if not (folder / name).is_file():
            raise InputError(f"missing model file: {folder / name}")
    with _reading(folder / "scheduler"):
        scheduler_config = DDIMScheduler.load_config(folder / "scheduler")
        # The two settings StableDiffusionPipeline insists on; older scheduler files lack them.
        scheduler = DDIMScheduler.from_config(scheduler_config, clip_sample=False, steps_offset=1)
    with _reading(folder / "tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    choose(scheduler.config.prediction_type, PREDICTION_TYPES, "prediction type")
    components = Components(
        unet=load_part(UNet2DConditionModel, folder / "unet", dtype).to(device),
        vae=load_part(AutoencoderKL, folder / "vae", dtype).to(device),
        text_encoder=load_part(CLIPTextModel, folder / "text_encoder", dtype).to(device),
        tokenizer=tokenizer,
        scheduler=scheduler,
        adapter=load_model(AUAdapter, folder / "au_adapter") if (folder / "au_adapter").is_dir() else None,
        folder=str(folder),
    )
    if (weak := folder / WEAK_UNET).is_dir():
        components.weak_unet = load_part(UNet2DConditionModel, weak, dtype).to(device)
    _check_fit(components)
    if components.adapter:
        components.adapter.to(device, dtype).requires_grad_(False)
        components.adapter.attach(components.unet)
    else:
        install_processors(components.unet)
    return components


@torch.no_grad()
def encode_prompt(components: Components, prompts: Sequence[str]) -> Tensor:
    """Encodes prompts with the text encoder, padded or cut to its T tokens: [B, T, D]."""
    return components.text_encoder(_token_ids(components, prompts))[0]


def word_mask(components: Components, prompts: Sequence[str]) -> Tensor:
    """Returns bool [B, T]: True on the words of each prompt, False on start, end and padding."""
    ids = _token_ids(components, prompts)
    mask = (ids == components.tokenizer.eos_token_id).cumsum(dim=1) == 0
    mask[:, 0] = False
    return mask


@torch.no_grad()
def encode_image(components: Components, images: Tensor) -> Tensor:
    """Encodes images [B, 3, H, W] in [-1, 1] into latents: the posterior's mode, without a draw."""
    posterior = components.vae.encode(images.to(components.device, components.dtype)).latent_dist
    return posterior.mode() * components.vae.config.scaling_factor


def decode_latents(components: Components, latents: Tensor) -> Tensor:
    """Decodes latents into images [B, 3, H, W], about [-1, 1]; differentiable."""
    return components.vae.decode(latents / components.vae.config.scaling_factor).sample


def _token_ids(components: Components, prompts: Sequence[str]) -> Tensor:
    length = components.text_encoder.config.max_position_embeddings
    tokens = components.tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return tokens.input_ids.to(components.device)


def as_pipeline(components: Components) -> Any:
    """Returns diffusers' own StableDiffusionPipeline of the parts, without a safety checker."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        components.vae,
        components.text_encoder,
        components.tokenizer,
        components.unet,
        components.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def load_part(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Loads one diffusers or transformers model, frozen and in evaluation mode.

    Raises:
        InputError: it is damaged, or its weights do not fit or are not finite.
    """
    with _reading(folder):
        model, report = cls.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    for kind in ("missing_keys", "unexpected_keys"):
        if report[kind]:
            raise InputError(f"{folder}: {kind.replace('_', ' ')}: {', '.join(sorted(report[kind])[:5])}")
    broken = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise InputError(f"{folder}: weights that are not finite: {', '.join(broken[:5])}")
    return model.requires_grad_(False).eval()


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a hostile configuration fails in as many ways as there are layers
        raise InputError(f"damaged model in {folder}: {error}") from error


def _check_fit(components: Components) -> None:
    unet, text_encoder = components.unet.config, components.text_encoder.config
    weak = components.weak_unet.config if components.weak_unet else unet
    for what, found, needed in (
        ("channels of the latents", components.vae.config.latent_channels, unet.in_channels),
        ("width of the text embedding", text_encoder.hidden_size, unet.cross_attention_dim),
        ("channels that weak_unet reads", weak.in_channels, unet.in_channels),
        ("channels that weak_unet predicts", weak.out_channels, unet.out_channels),
        ("width of what weak_unet attends to", weak.cross_attention_dim, unet.cross_attention_dim),
        ("tokens of the tokenizer", len(components.tokenizer), text_encoder.vocab_size),
    ):
        if found != needed:
            raise InputError(f"{components.folder}: {what}: {found} instead of {needed}")
