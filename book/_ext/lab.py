"""For `make lab`: a save changes what was edited, and nothing else."""


def keep_metadata(model, **_):
    """Leave out what Jupyter notes about the Python that runs it."""
    if model["type"] == "notebook":
        metadata = model["content"]["metadata"]
        metadata["kernelspec"] = {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
        metadata["language_info"] = {"name": "python"}


c.FileContentsManager.pre_save_hook = keep_metadata  # noqa: F821
