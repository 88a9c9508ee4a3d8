"""Pixels of which some are ignored, sequences with a mask, and a detector with a dict of losses."""

import pytest
import torch
from torch import nn

from landscape import Objective
from ncsam import SAM
from tests.clients.client import CHECKS, Client, D, generic

IGNORED = 255


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU())
        self.bottom = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.SiLU())
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        skipped = self.down(x)
        return self.head(torch.cat([skipped, self.up(self.bottom(skipped))], 1))


def pixels():
    """As many ignored pixels as differ from image to image; one image is ignored as a whole."""
    torch.manual_seed(0)
    model = generic(UNet())
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(5, 2, 8, 8, dtype=D, generator=generator)
    labels = torch.randint(0, 3, (5, 8, 8), generator=generator)
    share = torch.arange(5).view(-1, 1, 1) / 4
    labels[torch.rand(5, 8, 8, generator=generator) < share] = IGNORED
    loss_fn = nn.CrossEntropyLoss(ignore_index=IGNORED)

    def loss(model):
        kept = labels != IGNORED
        scores = model(images).permute(0, 2, 3, 1)[kept].log_softmax(1)
        return -scores.gather(1, labels[kept].unsqueeze(1)).mean()

    return Client(
        model,
        loss,
        Objective(model, loss_fn, (images, labels), chunk_size=2),
        ("head.weight", "up.bias"),
        lambda model, rho: SAM(model, loss_fn, rho=rho),
        (images, labels),
    )


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(4, 3)

    def forward(self, x, padding):
        hidden = self.encoder(x, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(2).to(x)
        return self.head((hidden * kept).sum(1) / kept.sum(1))


def masked_sequences():
    torch.manual_seed(0)
    model = generic(Sequences())
    x = torch.randn(7, 5, 4, dtype=D, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([5, 1, 3, 2, 5, 4, 1])
    batch = {"x": x, "padding": torch.arange(5) >= lengths.unsqueeze(1), "label": torch.arange(7) % 3}

    def forward(model, batch):
        return model(batch["x"], batch["padding"])

    def loss_fn(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch["label"])

    def loss(model):
        """Each sequence by itself, without padding."""
        outputs = [
            model(x[i : i + 1, :n], torch.zeros(1, n, dtype=torch.bool)) for i, n in enumerate(lengths)
        ]
        return nn.functional.cross_entropy(torch.cat(outputs), batch["label"])

    return Client(
        model,
        loss,
        Objective(model, loss_fn, batch, forward=forward, chunk_size=3),
        ("head.weight", "encoder.layers.1.linear2.bias"),
        lambda model, rho: SAM(model, loss_fn, rho=rho, forward=forward),
        (batch,),
    )


class Detector(nn.Module):
    """As torchvision's: lists of images of any size and of their boxes -> a dict of losses, each a mean over images."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.SiLU())
        self.classes, self.boxes = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 4, 1)

    def forward(self, images, targets):
        found = {"classes": 0.0, "boxes": 0.0}
        for image, target in zip(images, targets, strict=True):
            features = self.features(image.unsqueeze(0))
            centers = ((target["boxes"][:, :2] + target["boxes"][:, 2:]) / 4).long()
            at = (0, slice(None), centers[:, 1], centers[:, 0])
            scores, boxes = self.classes(features)[at].T, self.boxes(features)[at].T
            found["classes"] += nn.functional.cross_entropy(scores, target["labels"]) / len(images)
            found["boxes"] += nn.functional.smooth_l1_loss(boxes, target["boxes"]) / len(images)
        return found


def detected():
    torch.manual_seed(0)
    model = generic(Detector())
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randn(1, h, w, dtype=D, generator=generator)
        for h, w in ((8, 8), (6, 10), (10, 6), (8, 12), (6, 6))
    ]
    targets = []
    for count in (2, 1, 3, 2, 1):
        corners = 3 * torch.rand(count, 2, dtype=D, generator=generator)
        targets.append({"boxes": torch.cat([corners, corners + 2], 1), "labels": torch.arange(count)})
    batches = [(images[:2], targets[:2]), (images[2:], targets[2:])]

    def loss_of(model, batch):
        return sum(model(*batch).values())

    return Client(
        model,
        lambda model: loss_of(model, (images, targets)),
        Objective.of_loss(loss_of, model, batches, count=lambda batch: len(batch[0])),
        ("classes.weight", "boxes.bias"),
        lambda model, rho: SAM(model, lambda loss, _: loss, rho=rho, forward=loss_of),
        ((images, targets),),
    )


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("client", [pixels, masked_sequences, detected])
def test_all_measures_are_those_of_plain_torch(client, check):
    CHECKS[check](client())
