"""A stand-in for the Hugging Face Hub, on the loop-back interface.

`HubStandIn` keeps repositories in memory and serves the part of the Hub's HTTP interface that `huggingface_hub` and
`transformers` use to push a model, to load it back and to check its card. Clients speak to it over real HTTP, so that
a test meets the same requests, headers and error codes as a user does:

```python
with HubStandIn() as hub:
    hub.create_repository("org/model", files={"config.json": b"{}"})
    subprocess.run([sys.executable, "-c", script], env=hub.environment(tmp_path), check=True)
    assert hub.repositories["org/model"].files()["model.safetensors"]
    assert hub.unhandled == []
```

What it leaves out: Xet storage (so `HF_HUB_DISABLE_XET=1` is set), listings of more than one page, redirects of large
files to another host, and multipart uploads. Whatever it does not know is answered with 404 and kept in `unhandled`.
"""

from .server import HubStandIn


__all__ = ["HubStandIn"]
