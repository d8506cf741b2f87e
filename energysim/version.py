"""The version of the package: what results record, and what the build reads."""

VERSION = "0.1.0"
