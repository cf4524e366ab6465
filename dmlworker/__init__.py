"""The provider's worker: what someone with an idle computer installs. No Django in it; TensorFlow only once it trains."""

__version__ = "0.1.0"
