"""torch.nn of the stand-in."""

from . import attention, functional  # noqa: F401
