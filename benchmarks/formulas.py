"""The formulas of torchvision and timm, written out in PyTorch, on a batch in memory; images are (B, C, H, W)."""

import numpy as np
import torch


def formulas(kind, alpha, images, labels):
    """By library and mode: a function that mixes the batch."""
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    y = torch.from_numpy(labels)
    beta = torch.distributions.Beta(alpha, alpha)
    height, width = x.shape[2:]

    def box():
        lam = float(beta.sample())
        row, column = int(torch.randint(height, ())), int(torch.randint(width, ()))
        half = 0.5 * (1.0 - lam) ** 0.5
        rows = slice(max(row - int(half * height), 0), min(row + int(half * height), height))
        columns = slice(max(column - int(half * width), 0), min(column + int(half * width), width))
        kept = 1.0 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        return kept, (rows, columns)

    def rolled(x, lam):
        return x.roll(1, 0).mul_(1.0 - lam).add_(x.mul(lam))

    def torchvision():
        if kind == "MixUp":
            lam = float(beta.sample())
            return rolled(x.float(), lam), rolled(y, lam)
        lam, window = box()
        mixed = x.clone()
        mixed[:, :, *window] = x.roll(1, 0)[:, :, *window]
        return mixed, rolled(y, lam)

    def timm():
        """In place, as timm does."""
        if kind == "MixUp":
            lam, mixed = float(beta.sample()), x.float()
            mixed.mul_(lam).add_(mixed.flip(0).mul_(1.0 - lam))
        else:
            lam, window = box()
            mixed = x
            mixed[:, :, *window] = x.flip(0)[:, :, *window]
        return mixed, y * lam + y.flip(0) * (1.0 - lam)

    def timm_by_element():
        original, mixed, shares = x.clone(), x, torch.ones(len(x), 1)
        for i in range(len(x)):
            j = len(x) - 1 - i
            if kind == "MixUp":
                lam = float(beta.sample())
                mixed[i] = original[i] * lam + original[j] * (1.0 - lam)
            else:
                lam, window = box()
                mixed[i][:, *window] = original[j][:, *window]
            shares[i] = lam
        return mixed, y * shares + y.flip(0) * (1.0 - shares)

    return {
        "torchvision's formula": torchvision,
        "timm's formula, in place": timm,
        "timm's formula, by element": timm_by_element,
    }
