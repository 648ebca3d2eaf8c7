# SPDX-License-Identifier: MPL-2.0
"""Steps of the trainer's model by PyTorch, as it is: 784-512-512-10, batch 512, SGD with momentum, f32, one GPU.

Prints samples a second of the median of several rounds: eagerly, and with the step as a graph; with batches of the
host, and with batches that are made on the GPU of samples that are there, as the trainer's are.
"""

import statistics
import time

import torch

ROWS, STEPS, ROUNDS = 512, 117, 5


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 10),
    ).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs = torch.rand(STEPS * ROWS, 784)
    labels = torch.randint(10, (STEPS * ROWS,))
    kept = (inputs.cuda(), labels.cuda())
    order = torch.randperm(STEPS * ROWS).cuda()
    batch = (torch.empty(ROWS, 784, device="cuda"), torch.empty(ROWS, dtype=torch.int64, device="cuda"))

    def step():
        optimizer.zero_grad(set_to_none=False)
        torch.nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()

    def send(rows):
        batch[0].copy_(inputs[rows], non_blocking=True)
        batch[1].copy_(labels[rows], non_blocking=True)

    def pick(rows):
        torch.index_select(kept[0], 0, order[rows], out=batch[0])
        torch.index_select(kept[1], 0, order[rows], out=batch[1])

    def rate(run, load):
        rates = []
        for _ in range(ROUNDS):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            for number in range(STEPS):
                load(slice(number * ROWS, (number + 1) * ROWS))
                run()
            torch.cuda.synchronize()
            rates.append(STEPS * ROWS / (time.perf_counter() - begun))
        return statistics.median(rates)

    def tell(how, run):
        of_host, of_gpu = rate(run, send), rate(run, pick)
        print(f"{how}: {of_host:.0f} samples a second with batches of the host, {of_gpu:.0f} with batches made on the GPU")

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}")
    tell("eager", step)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    tell("as a graph", graph.replay)


main()
