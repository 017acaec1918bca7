"""What makes XLA compile more quickly where nobody looks at times, printed for a shell."""

from importlib.metadata import version

# From 0.11 on jaxlib ends the process at a flag that it no longer knows.
KNOWN = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)
XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false" if KNOWN else ""

if __name__ == "__main__":
    print(XLA_FLAGS)
