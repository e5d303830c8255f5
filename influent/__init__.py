"""Predict what each user does next, and say in numbers that add up which earlier behaviours led there."""

import lazy_loader

__version__ = "0.1.0"

# A public name is imported when it is first touched, so that reading a table never imports torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
