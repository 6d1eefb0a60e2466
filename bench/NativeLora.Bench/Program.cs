using NativeLora;
using NativeLora.Bench.Compare;
using NativeLora.Bench.Cuda;
using NativeLora.Bench.Kernels;
using NativeLora.Bench.Profiling;
using NativeLora.Tensors;

const string Usage = """
    kernels [FILTER] [--threads N] [--iterations N]  time kernels with BenchmarkDotNet
    compare [--what gemm|adapted] [--threads 1,2] [--rounds R] [--filter TEXT] [--precision fp32|bf16] [--widths 768,1024,2048]
            [--ranks 8,64] [--json FILE] [--markdown FILE]
                                                    products against OpenBLAS, or adapted linear modules against frozen ones;
                                                    against libtorch and ONNX Runtime: see bench/README.md
    scaling [--output FOLDER] [--filter tokens|layers|rank|threads] [--threads N] [--steps N] [--precision fp32|bf16] [--model FOLDER]
                                                    time of a step by tokens, layers, rank and threads: CSV and PNG
    profile [--kind minilm|bertbase|smollm2] [--mask 0101…] [--threads N] [--steps N] [--model FOLDER]
                                                    a training step by op, layer and node
    adapters --model FOLDER [--adapters N] [--rank N] [--rows N] [--length N] [--threads N] [--runs N]
                                                    several adapters over one base: switching, and mixed batches
    cuda-costs --model FOLDER [--output FILE] [--emulator FOLDER]
                                                    write docs/cuda-costs.md: kernels and a Llama-2-7B step on CUDA, on paper
    """;

try
{
    switch (args.FirstOrDefault())
    {
        case "kernels":
            KernelBenchmarks.Run(new Options(args[1..], "threads", "iterations"));
            return 0;
        case "compare":
            {
                var options = new Options(args[1..], "threads", "rounds", "filter", "json", "markdown", "what", "precision", "widths", "ranks");
                var report = new Report();
                if (options.Text("what", "gemm") == "adapted")
                {
                    AdaptedComparison.Run(report, options, options.Numbers("threads", 1, 2), options.Text("precision", "fp32") == "bf16" ? ElementType.BF16 : ElementType.F32);
                    report.Write(options);
                    return 0;
                }
                if (options.Text("what", "gemm") is not "gemm" and var other)
                    throw new InputException($"--what {other}: gemm or adapted is expected");
                GemmPeer[] peers = OpenBlas.Find() is { } blas ? [blas] : [];
                GemmComparison.Run(report, peers, options.Numbers("threads", 1, 2), options.Number("rounds", 21), options.Text("filter"));
                foreach (var blasFound in peers.OfType<OpenBlas>())
                    report.Note($"OpenBLAS with its kernels for {blasFound.Core}.");
                report.Write(options);
                return 0;
            }
        case "profile":
            StepProfile.Run(new Options(args[1..], "kind", "mask", "threads", "steps", "model", "precision"));
            return 0;
        case "scaling":
            Scaling.Run(new Options(args[1..], "output", "filter", "threads", "steps", "precision", "model"));
            return 0;
        case "cuda-costs":
            CudaCosts.Run(new Options(args[1..], "model", "output", "emulator"));
            return 0;
        case "adapters":
            AdapterSwitching.Run(new Options(args[1..], "model", "adapters", "rank", "rows", "length", "threads", "runs"));
            return 0;
        default:
            Console.Error.WriteLine(Usage);
            return 2;
    }
}
catch (Exception e) when (e is InputException or RunException)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}
