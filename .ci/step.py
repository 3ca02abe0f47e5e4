"""The three lines, with nothing installed but the wheel and what it requires."""

import importlib.util
from pathlib import Path

import torch

import advloss

for extra in ("timm", "diffusers", "accelerate"):
    assert importlib.util.find_spec(extra) is None, f"{extra} is here: this environment is not clean"

model = torch.nn.Conv2d(3, 3, 3, padding=1)
optimizer = torch.optim.Adam(model.parameters())
adversary = advloss.Adversary("patch", loss="hinge", regularizers={"r1": {"weight": 10.0, "every": 16}})
batch = torch.rand(2, 3, 32, 32) * 2 - 1
for _ in range(3):
    fake = model(batch)
    loss = (fake - batch).square().mean() + adversary.generator_loss(fake, real=batch)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    report = adversary.discriminator_step(real=batch, fake=fake)
print(report.as_dict())
assert report.step == 2
assert not report.skipped
advloss.save_state(adversary.state_dict(), Path("adversary.safetensors"))
adversary.load_state_dict(advloss.load_state(Path("adversary.safetensors")))
