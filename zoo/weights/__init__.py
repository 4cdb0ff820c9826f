"""Published weights into our models, safely, without the frameworks that wrote them.

`loading` is the door. `hub`, `safetensors_files`, `keras_files` and `torch_files` read; one
file per family says for each framework how the family's modules are called there, `layouts`
what the frameworks do with arrays whatever the network, and `importing` puts each tensor
where it belongs. `catalogue` knows what others have published.
"""
