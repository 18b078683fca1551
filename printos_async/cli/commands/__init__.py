"""The subcommands of ``printos``."""
