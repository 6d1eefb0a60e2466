using BenchmarkDotNet.Attributes;
using NativeLora.Bench.Compare;
using NativeLora.Devices.Cpu;

namespace NativeLora.Bench.Kernels;

/// <summary>A product's sizes: x [M, K], W [N, K].</summary>
public sealed record ProductWork(string Layer, int M, int N, int K) : Work($"{Layer} {M}x{N}x{K}", 2.0 * M * N * K, 0);

/// <summary>The three products of a linear layer.</summary>
public unsafe class GemmBenchmarks : KernelBenchmark
{
    private Gemm _gemm = null!;
    private GemmArgs _forward, _input, _weight;

    /// <summary>Shapes of real models.</summary>
    public static IEnumerable<ProductWork> Shapes => GemmShape.All.Select(s => new ProductWork(s.Name, s.M, s.N, s.K));

    /// <summary>The one at hand.</summary>
    [ParamsSource(nameof(Shapes))]
    public ProductWork Shape { get; set; } = null!;

    /// <summary>Makes the operands.</summary>
    [GlobalSetup]
    public void Setup()
    {
        Begin();
        _gemm = Own(new Gemm(Device.Threads));
        var (m, n, k) = (Shape.M, Shape.N, Shape.K);
        var x = new GemmMatrix(Random(m * k).At, k);
        var w = new GemmMatrix(Random(n * k).At, k);
        var y = new GemmMatrix(Random(m * n).At, n);
        float* ofX = Random(m * k).At, ofW = Random(n * k).At, ofY = Random(m * n).At;
        _forward = new GemmArgs { M = m, N = n, K = k, A = x, B = w.Transpose(), C = ofY, CStride = n };
        _input = new GemmArgs { M = m, N = k, K = n, A = y, B = w, C = ofX, CStride = k };
        _weight = new GemmArgs { M = n, N = k, K = m, A = y.Transpose(), B = x, C = ofW, CStride = k };
    }

    /// <summary>y = x Wᵀ.</summary>
    [Benchmark]
    public void Forward() => _gemm.Run(_forward);

    /// <summary>dx = dy W.</summary>
    [Benchmark]
    public void InputGradient() => _gemm.Run(_input);

    /// <summary>dW = dyᵀ x.</summary>
    [Benchmark]
    public void WeightGradient() => _gemm.Run(_weight);
}

/// <summary>What an adapter adds to a linear layer.</summary>
public unsafe class LoraBenchmarks : KernelBenchmark
{
    private Gemm _gemm = null!;
    private GemmArgs _plain, _down, _both, _gradientP, _gradientA, _gradientB;

    /// <summary>An attention projection and an MLP one.</summary>
    public static IEnumerable<ProductWork> Shapes =>
        [new("minilm query", 4096, 384, 384), new("bert-base query", 2048, 768, 768), new("smollm2 gate", 1024, 1536, 576)];

    /// <summary>The one at hand.</summary>
    [ParamsSource(nameof(Shapes))]
    public ProductWork Shape { get; set; } = null!;

    /// <summary>LoRA's r.</summary>
    [Params(8, 64)]
    public int Rank { get; set; }

    /// <summary>Makes the operands.</summary>
    [GlobalSetup]
    public void Setup()
    {
        Begin();
        _gemm = Own(new Gemm(Device.Threads));
        var (m, n, k) = (Shape.M, Shape.N, Shape.K);
        var x = new GemmMatrix(Random(m * k).At, k);
        var w = new GemmMatrix(Random(n * k).At, k);
        var a = new GemmMatrix(Random(Rank * k).At, k);
        var b = new GemmMatrix(Random(n * Rank).At, Rank);
        var p = new GemmMatrix(Random(m * Rank).At, Rank);
        float* bias = Random(n).At, y = Random(m * n).At;
        var dy = new GemmMatrix(y, n);
        _plain = new GemmArgs { M = m, N = n, K = k, A = x, B = w.Transpose(), Bias = bias, C = y, CStride = n };
        _down = new GemmArgs { M = m, N = Rank, K = k, A = x, B = a.Transpose(), Alpha = 2, C = (float*)p.Data, CStride = Rank };
        _both = _plain with { K2 = Rank, A2 = p, B2 = b.Transpose() };
        var dp = new GemmMatrix(Random(m * Rank).At, Rank);
        _gradientP = new GemmArgs { M = m, N = Rank, K = n, A = dy, B = b, Alpha = 2, C = (float*)dp.Data, CStride = Rank };
        _gradientA = new GemmArgs { M = Rank, N = k, K = m, A = dp.Transpose(), B = x, C = Random(Rank * k).At, CStride = k };
        _gradientB = new GemmArgs { M = n, N = Rank, K = m, A = dy.Transpose(), B = p, C = Random(n * Rank).At, CStride = Rank };
    }

    /// <summary>y = x Wᵀ + b.</summary>
    [Benchmark(Baseline = true)]
    public void Plain() => _gemm.Run(_plain);

    /// <summary>P = s x Aᵀ, y = x Wᵀ + P Bᵀ + b.</summary>
    [Benchmark]
    public void Lora()
    {
        _gemm.Run(_down);
        _gemm.Run(_both);
    }

    /// <summary>dP = s dy B, dA = dPᵀ x, dB = dyᵀ P.</summary>
    [Benchmark]
    public void AdapterGradients()
    {
        _gemm.Run(_gradientP);
        _gemm.Run(_gradientA);
        _gemm.Run(_gradientB);
    }
}
