"""Export an mlx.nn module of your own and prove it: python examples/export_my_module.py"""

from converters import export_module, load_package, verify  # before mlx: it loads a fast BLAS

# isort: split
import mlx.core as mx
import mlx.nn as nn


class SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.head = nn.Linear(16, 10)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.stem(x)
        x = x + self.down(nn.gelu(self.up(self.norm(x))))
        return self.head(x.mean(axis=(1, 2)))


net = SmallNet()
net.eval()
image = mx.random.normal((1, 64, 64, 3))
path = export_module(net, image, "SmallNet.mlpackage", input_names=["image"], force=True)

package = load_package(path)
print(package, package.operations)
report = verify(net, package, [image]).require()
for line in report.comparisons:
    print(f"{line.output}: {line.psnr_db:.1f} dB, largest error {line.max_error:.1e}")
