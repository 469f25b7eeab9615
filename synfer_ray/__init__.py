"""synfer-ray: labelled facial-expression data by guided diffusion (SynFER, ICCV 2025), on Ray."""

__version__ = "0.1.0"
