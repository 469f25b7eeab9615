"""From a plan row to words: the caption grammar, attributes with quotas, and the expression lint."""

from synfer_ray.prompts.attributes import FRONTAL, sample_attributes
from synfer_ray.prompts.caption import vocabulary, write_caption
from synfer_ray.prompts.lint import NEUTRAL_PROMPT, names_other_expression

__all__ = [
    "FRONTAL",
    "NEUTRAL_PROMPT",
    "names_other_expression",
    "sample_attributes",
    "vocabulary",
    "write_caption",
]
