"""What training makes small."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from energysim.train.scratch import Floats

Ints = npt.NDArray[np.integer]


def softmax(logits: Floats) -> Floats:
    """Probability of each class, shape (K, N)."""
    powers: Floats = np.exp(logits - logits.max(axis=0))
    powers /= powers.sum(axis=0)
    return powers


def cross_entropy(logits: Floats, labels: Ints, *, smoothing: float = 0.0) -> tuple[float, Floats]:
    """Mean cross-entropy of softmax with the labels, and its gradient.

    Parameters
    ----------
    logits : ndarray, shape (K, N)
    labels : ndarray of int, shape (N,)
        Class of each image.
    smoothing : float
        Share of the target that is spread evenly over all classes, 0 to 1.

    Returns
    -------
    loss : float
        Mean over the images [nat].
    dlogits : ndarray, shape (K, N)

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
    section 7: label smoothing.

    Examples
    --------
    >>> loss, dlogits = cross_entropy(np.zeros((4, 1)), np.array([0]))
    >>> round(loss, 4), dlogits.ravel().tolist()
    (1.3863, [-0.75, 0.25, 0.25, 0.25])
    """
    classes, batch = logits.shape
    images = np.arange(batch)
    shifted = logits - logits.max(axis=0)
    powers = np.exp(shifted)
    total = powers.sum(axis=0)
    log_total = np.log(total)
    of_label = (shifted[labels, images] - log_total).mean(dtype=np.float64)
    of_all = (shifted.mean(axis=0, dtype=np.float64) - log_total).mean()
    loss = -float((1 - smoothing) * of_label + smoothing * of_all)
    dlogits: Floats = powers
    dlogits /= total
    dlogits -= smoothing / classes
    dlogits[labels, images] -= 1 - smoothing
    dlogits /= batch
    return loss, dlogits
