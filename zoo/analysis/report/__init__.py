"""One page about a run: how good its model is, where it is wrong, what to work on next.

Figures are those of `zoo.analysis`; here they become plain structures (`page.contents`), and the
page, one HTML file with its own style and script that loads nothing (`page.render`).
"""
