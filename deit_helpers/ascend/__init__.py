"""The Ascend toolchain's programs and file formats."""
