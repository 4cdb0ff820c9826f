"""Weights of other frameworks: what their arrays are called and how they are laid out.

One file per family says for each framework how the family's modules are called there;
`layouts` says what the frameworks do with arrays whatever the network.
"""
