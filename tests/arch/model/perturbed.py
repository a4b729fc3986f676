"""Parameters off their initial values, which hide whole terms of the equations."""

import jax


def perturbed(tree, scale):
    """A tree of arrays with normal noise of this size added to each."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + scale * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(treedef, moved)
