"""Ada-DF (Liu et al. 2023, ICASSP), github.com/taylor-xy0827/Ada-DF, no licence stated.

A ResNet-18 that forks after its first stage. The auxiliary branch makes label distributions for training; the
target branch alone answers at test time, its logits weighted by an attention of its own. The authors released
no trained weights: the layout is what their training code saves. Their dropout stays active in evaluation; it
is off here. The order of the classes is that of the training set: RAF-DB's, AffectNet's, or SFEW's folders.
"""

from torch import Tensor, nn

from synfer_ray.calibration.published.pixels import Pixels
from synfer_ray.calibration.published.resnet import BasicBlock, residual_stage


class AdaDF(nn.Module):
    """Ada-DF's target branch: faces [B, 3, H, W] in [-1, 1] -> logits [B, classes].

    Attributes:
        UNUSED: prefixes of the auxiliary branch, and of modules that the file stores a second time.
        CLASSES_KEY: the bias that tells the number of classes.
    """

    UNUSED = ("branch_1", "branch_2_feature.", "branch_2_classifier.", "alpha_1.")
    CLASSES_KEY = "branch_2.4.bias"

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.pixels = Pixels((224, 224))
        self.feature = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            residual_stage(BasicBlock, 64, 64, depth=2, stride=1),
        )
        self.branch_2 = nn.Sequential(
            residual_stage(BasicBlock, 64, 128, depth=2),
            residual_stage(BasicBlock, 128, 256, depth=2),
            residual_stage(BasicBlock, 256, 512, depth=2),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(512, classes),
        )
        self.alpha_2 = nn.Sequential(nn.Linear(512, 1), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        features = self.branch_2[:-1](self.feature(self.pixels(images)))
        return self.alpha_2(features) * self.branch_2[-1](features)
