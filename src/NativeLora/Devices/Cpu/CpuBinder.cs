using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cpu;

/// <summary>Gives each node its kernel, with addresses set once. Kernels with scratch are shared by the nodes that use them.</summary>
internal sealed unsafe partial class CpuBinder : IDisposable
{
    private readonly CpuThreads _threads;
    private readonly Gemm _gemm;
    private readonly List<IDisposable> _owned = [];
    private readonly Dictionary<(Type Kind, int HeadDim), AttentionKernel> _attention = [];
    private LossScratch? _losses;

    public CpuBinder(CpuThreads threads, CpuPath path)
    {
        _threads = threads;
        _gemm = new Gemm(threads, path);
        _owned.Add(_gemm);
        ScratchBytes = Gemm.WorkspaceBytes(threads.Count);
    }

    public CpuPath Path => _gemm.Path;

    public long ScratchBytes { get; private set; }

    public void Dispose()
    {
        foreach (var owned in _owned)
            owned.Dispose();
    }

    public Kernel Bind(Node node, ITensorAddresses at, BatchSize capacity)
    {
        return node.Inputs.Any(IsBrain) || node.Outputs.Any(IsBrain)
            ? Bind<BFloat16>(node, at, capacity)
            : Bind<float>(node, at, capacity);
    }

    private static bool IsBrain(Tensor? tensor) => tensor is { Type: ElementType.BF16, InArena: true };

    /// <summary>A pointer to a tensor of fp32.</summary>
    private static float* Full(Tensor? tensor, ITensorAddresses at) => tensor is null ? null
        : tensor.Type == ElementType.F32 ? (float*)at.Of(tensor)
        : throw new InvalidOperationException($"{tensor} should be fp32");

    /// <summary>A pointer to an activation of elements E.</summary>
    private static E* Of<E>(Tensor? tensor, ITensorAddresses at) where E : unmanaged => tensor is null ? null
        : tensor.Type == (typeof(E) == typeof(float) ? ElementType.F32 : ElementType.BF16) ? (E*)at.Of(tensor)
        : throw new InvalidOperationException($"{tensor} beside tensors of {typeof(E).Name}");

    private Kernel Bind<E>(Node node, ITensorAddresses at, BatchSize capacity) where E : unmanaged
    {
        float* F(Tensor? tensor) => Full(tensor, at);
        E* T(Tensor? tensor) => Of<E>(tensor, at);
        int* I(Tensor? tensor) => tensor is null ? null : (int*)at.Of(tensor);
        var inputs = node.Inputs;
        var output = node.Output;
        var columns = output.Shape.Columns;
        switch (node.Op)
        {
            case LinearOp or LoraLinearOp or LinearInputGradOp or LoraInputGradOp or LoraDownGradOp or WeightGradOp:
                return BindProduct(node, at);
            case ColumnSumOp op:
                {
                    var k = new ColumnSum<E>(_threads, columns) { Gradient = T(inputs[0]), Result = F(output) };
                    return Do(inputs[0]!, (s, rows) =>
                    {
                        k.Accumulate = op.Adds || s.AccumulateGradients;
                        k.Execute(rows);
                    });
                }
            case EmbeddingOp op:
                return BindEmbedding<E>(node, op, at);
            case EmbeddingGradOp op:
                {
                    var k = new EmbeddingBackward<E>(_threads, columns, output.Shape.FixedRows)
                    {
                        Gradient = T(inputs[0]),
                        Ids = I(inputs[1]),
                        TableGradient = F(output),
                        Scale = op.Scale,
                    };
                    return Do(inputs[0]!, (s, rows) =>
                    {
                        k.Accumulate = op.Adds || s.AccumulateGradients;
                        k.Execute(rows);
                    });
                }
            case DoraScaleOp or DoraOp or DoraGradOp or MagnitudeGradOp or EmbeddingColumnsOp or EmbeddingColumnsGradOp:
                return BindAdapter<E>(node, at);
            case GroupedLoraOp or GroupedEmbeddingOp:
                return BindGrouped<E>(node, at);
            case LayerNormOp op:
                {
                    var k = new LayerNormForward<E>(_threads, columns, op.Epsilon) { Input = T(inputs[0]), Weight = F(inputs[1]), Bias = F(inputs[2]), Output = T(output) };
                    return Do(output, (_, rows) => k.Execute(rows));
                }
            case RmsNormOp op:
                {
                    var (width, groups) = RmsNormOp.Groups(inputs[0]!, inputs[1]!);
                    var k = new RmsNormForward<E>(_threads, width, op.Epsilon, op.AddOne ? 1 : 0) { Input = T(inputs[0]), Weight = F(inputs[1]), Output = T(output) };
                    return Do(output, (_, rows) => k.Execute(rows * groups));
                }
            case NormGradOp op:
                return BindNormGrad<E>(node, op, at, capacity);
            case AddOp:
                {
                    var k = new Add<E>(_threads, columns) { First = T(inputs[0]), Second = T(inputs[1]), Output = T(output) };
                    return Do(output, (_, rows) => k.Execute(rows));
                }
            case DropoutOp op:
                {
                    var k = new Dropout<E>(_threads, columns) { Input = T(inputs[0]), Output = T(output), Probability = op.Probability, Stream = op.Stream };
                    return Do(output, (s, rows) =>
                    {
                        (k.Seed, k.Step, k.RowsBefore) = (s.Seed, s.Step, output.Shape.RowsBefore(s.Before));
                        k.Execute(rows);
                    });
                }
            case ActivationOp op:
                return op.Kind switch
                {
                    ActivationKind.Gelu => Activate<E, GeluErf>(node, at),
                    ActivationKind.GeluTanh => Activate<E, GeluTanh>(node, at),
                    ActivationKind.Tanh => Activate<E, HyperbolicTangent>(node, at),
                    ActivationKind.Relu => Activate<E, Relu>(node, at),
                    ActivationKind.Silu => Activate<E, Silu>(node, at),
                    ActivationKind.QuickGelu => Activate<E, QuickGelu>(node, at),
                    _ => throw new NotSupportedException($"{op.Kind}"),
                };
            case ActivationGradOp op:
                return op.Kind switch
                {
                    ActivationKind.Gelu => ActivateGrad<E, GeluErf>(node, at),
                    ActivationKind.GeluTanh => ActivateGrad<E, GeluTanh>(node, at),
                    ActivationKind.Relu => ActivateGrad<E, Relu>(node, at),
                    ActivationKind.Silu => ActivateGrad<E, Silu>(node, at),
                    ActivationKind.Tanh => TanhGrad<E>(node, at),
                    ActivationKind.QuickGelu => ActivateGrad<E, QuickGelu>(node, at),
                    _ => throw new NotSupportedException($"{op.Kind}"),
                };
            case GatedOp op:
                return op.Kind switch
                {
                    ActivationKind.Silu => Gate<E, Silu>(node, at),
                    ActivationKind.Gelu => Gate<E, GeluErf>(node, at),
                    ActivationKind.GeluTanh => Gate<E, GeluTanh>(node, at),
                    ActivationKind.Relu => Gate<E, Relu>(node, at),
                    ActivationKind.QuickGelu => Gate<E, QuickGelu>(node, at),
                    _ => throw new NotSupportedException($"{op.Kind}"),
                };
            case GatedGradOp op:
                return op.Kind switch
                {
                    ActivationKind.Silu => GateGrad<E, Silu>(node, at),
                    ActivationKind.Gelu => GateGrad<E, GeluErf>(node, at),
                    ActivationKind.GeluTanh => GateGrad<E, GeluTanh>(node, at),
                    ActivationKind.Relu => GateGrad<E, Relu>(node, at),
                    ActivationKind.QuickGelu => GateGrad<E, QuickGelu>(node, at),
                    _ => throw new NotSupportedException($"{op.Kind}"),
                };
            case SplitOp or JoinOp:
                return BindColumns<E>(node, at);
            case SoftcapOp op:
                {
                    var k = new SoftcapForward<E>(_threads, columns, op.Cap) { Input = T(inputs[0]), Output = T(output) };
                    return Do(output, (_, rows) => k.Execute(rows));
                }
            case SoftcapGradOp op:
                {
                    var k = new SoftcapBackward<E>(_threads, columns, op.Cap) { Gradient = T(inputs[0]), Output = T(inputs[1]), InputGradient = T(output) };
                    return Do(output, (_, rows) => k.Execute(rows));
                }
            case RotaryOp op:
                {
                    var k = new Rotary<E>(_threads, columns / op.HeadDim, op.HeadDim, 2 * inputs[2]!.Shape.Columns)
                    {
                        Input = T(inputs[0]),
                        Positions = I(inputs[1]),
                        Cos = F(inputs[2]),
                        Sin = F(inputs[3]),
                        Output = T(output),
                        Inverse = op.Inverse,
                    };
                    return Do(output, (_, rows) => k.Execute(rows));
                }
            case AttentionOp op:
                return BindAttention<E>(node, op, at);
            case AttentionGradOp op:
                return BindAttentionGrad<E>(node, op, at, capacity);
            case DisentangledAttentionOp op:
                return BindDisentangled<E>(node, op, at);
            case DisentangledAttentionGradOp op:
                return BindDisentangledGrad<E>(node, op, at, capacity);
            case TableOp:
                return BindTable(node, at);
            case TableGradOp op:
                return BindTableGrad(node, op, at);
            case UnfoldPatchesOp or ClassTokenOp or PictureRowsOp or PictureRowsGradOp or PictureSumOp or PlacePicturesOp or OutsidePicturesOp or TakePicturesOp:
                return BindPictures<E>(node, at);
            case CacheAppendOp:
                return BindCacheAppend<E>(node, at);
            case CachedAttentionOp op:
                return BindCachedAttention<E>(node, op, at);
            case GatherOp:
                {
                    var k = new GatherRows<E>(_threads, columns) { Input = T(inputs[0]), Index = I(inputs[1]), Output = F(output) };
                    return Do(output, (_, rows) => k.Execute(rows));
                }
            case ScatterOp:
                {
                    var k = new GatherRowsBackward<E>(_threads, columns) { Gradient = F(inputs[0]), Index = I(inputs[1]), InputGradient = T(output) };
                    return new Runs(s => k.Execute(s.Size.Tokens, s.Size.Sequences));
                }
            case MeanPoolOp:
                {
                    var k = new MeanRows<E>(_threads, columns) { Input = T(inputs[0]), CuSeqlens = I(inputs[1]), Visible = I(inputs[2]), Output = F(output) };
                    return new Runs(s => k.Execute(s.Size.Sequences));
                }
            case MeanPoolGradOp:
                {
                    var k = new MeanRowsBackward<E>(_threads, columns) { Gradient = F(inputs[0]), CuSeqlens = I(inputs[1]), Visible = I(inputs[2]), InputGradient = T(output) };
                    return new Runs(s => k.Execute(s.Size.Sequences));
                }
            case CrossEntropyOp or SquaredErrorOp or LossGradOp:
                return BindLoss(node, at, capacity);
            case LmHeadLossOp op:
                return new LmHead(this, node, op, at, Losses(capacity));
            default:
                throw new NotSupportedException($"the CPU has no kernel for {node.Op.Name}");
        }
    }

    /// <summary>Work given as a function of the step.</summary>
    private sealed class Runs(Action<StepArguments> work) : Kernel
    {
        public override void Execute(StepArguments step) => work(step);
    }

    /// <summary>Work over the rows of a tensor.</summary>
    private static Runs Do(Tensor over, Action<StepArguments, int> work)
    {
        var shape = over.Shape;
        return new Runs(s => work(s, shape.Rows(s.Size)));
    }

    private Runs Activate<E, T>(Node node, ITensorAddresses at)
        where E : unmanaged
        where T : struct, IActivation
    {
        var k = new ActivationForward<E, T>(_threads, node.Output.Shape.Columns) { Input = Of<E>(node.Inputs[0], at), Output = Of<E>(node.Output, at) };
        return Do(node.Output, (_, rows) => k.Execute(rows));
    }

    private Runs ActivateGrad<E, T>(Node node, ITensorAddresses at)
        where E : unmanaged
        where T : struct, IActivation
    {
        var k = new ActivationBackward<E, T>(_threads, node.Output.Shape.Columns)
        {
            Gradient = Of<E>(node.Inputs[0], at),
            Input = Of<E>(node.Inputs[1], at),
            InputGradient = Of<E>(node.Output, at),
        };
        return Do(node.Output, (_, rows) => k.Execute(rows));
    }

    private Runs Gate<E, T>(Node node, ITensorAddresses at)
        where E : unmanaged
        where T : struct, IActivation
    {
        var k = new GatedForward<E, T>(_threads, node.Output.Shape.Columns)
        {
            Gate = Of<E>(node.Inputs[0], at),
            Up = Of<E>(node.Inputs[1], at),
            Output = Of<E>(node.Output, at),
        };
        return Do(node.Output, (_, rows) => k.Execute(rows));
    }

    private Runs GateGrad<E, T>(Node node, ITensorAddresses at)
        where E : unmanaged
        where T : struct, IActivation
    {
        var k = new GatedBackward<E, T>(_threads, node.Output.Shape.Columns)
        {
            Gradient = Of<E>(node.Inputs[0], at),
            Gate = Of<E>(node.Inputs[1], at),
            Up = Of<E>(node.Inputs[2], at),
            GateGradient = Of<E>(node.Outputs[0], at),
            UpGradient = Of<E>(node.Outputs[1], at),
        };
        return Do(node.Output, (_, rows) => k.Execute(rows));
    }

    /// <summary>A wide tensor and its parts, side by side: copied to them or from them.</summary>
    private Runs BindColumns<E>(Node node, ITensorAddresses at) where E : unmanaged
    {
        var split = node.Op is SplitOp;
        var wide = split ? node.Inputs[0]! : node.Output;
        var widths = node.Op is JoinOp join ? join.Widths : [.. node.Outputs.Select(o => o.Shape.Columns)];
        var parts = new ColumnCopy<E>[widths.Count];
        var from = 0;
        for (var i = 0; i < parts.Length; i++)
        {
            var part = split ? node.Outputs[i] : node.Inputs[i];
            parts[i] = new ColumnCopy<E>(_threads, widths[i])
            {
                Wide = Of<E>(wide, at) + from,
                WideStride = wide.Shape.Columns,
                Part = Of<E>(part, at),
                ToPart = split,
            };
            from += widths[i];
        }
        return Do(wide, (_, rows) =>
        {
            foreach (var part in parts)
                part.Execute(rows);
        });
    }

    private Runs TanhGrad<E>(Node node, ITensorAddresses at) where E : unmanaged
    {
        var k = new TanhBackward<E>(_threads, node.Output.Shape.Columns)
        {
            Gradient = Of<E>(node.Inputs[0], at),
            Output = Of<E>(node.Inputs[1], at),
            InputGradient = Of<E>(node.Output, at),
        };
        return Do(node.Output, (_, rows) => k.Execute(rows));
    }

    private Runs BindEmbedding<E>(Node node, EmbeddingOp op, ITensorAddresses at) where E : unmanaged
    {
        var k = new EmbeddingForward<E>(_threads, node.Output.Shape.Columns) { Output = Of<E>(node.Output, at), Scale = op.Scale };
        EmbeddingTable Table(int i) => 2 * i < node.Inputs.Count
            ? new EmbeddingTable { Ids = (int*)at.Of(node.Inputs[2 * i]!), Table = (void*)at.Of(node.Inputs[2 * i + 1]!), Type = node.Inputs[2 * i + 1]!.Type }
            : default;
        (k.First, k.Second, k.Third) = (Table(0), Table(1), Table(2));
        return Do(node.Output, (_, rows) => k.Execute(rows));
    }

    private Runs BindNormGrad<E>(Node node, NormGradOp op, ITensorAddresses at, BatchSize capacity) where E : unmanaged
    {
        float* F(Tensor? tensor) => Full(tensor, at);
        E* T(Tensor? tensor) => Of<E>(tensor, at);
        var x = node.Inputs[1]!;
        E* dy = T(node.Inputs[0]), addend = T(node.Inputs[3]);
        var weight = F(node.Inputs[2]);
        var outputs = node.Outputs;
        var dx = op.Input ? T(outputs[0]) : null;
        var first = op.Input ? 1 : 0;
        var dw = op.Parameters ? F(outputs[first]) : null;
        var db = op.Parameters && outputs.Count > first + 1 ? F(outputs[first + 1]) : null;
        var rows = x.Shape.Rows(capacity);
        switch (op.Forward)
        {
            case LayerNormOp norm:
                {
                    var k = new LayerNormBackward<E>(_threads, x.Shape.Columns, norm.Epsilon, rows, op.Parameters)
                    {
                        Gradient = dy,
                        Input = T(x),
                        Weight = weight,
                        Addend = addend,
                        InputGradient = dx,
                        WeightGradient = dw,
                        BiasGradient = db,
                    };
                    ScratchBytes += k.ScratchBytes;
                    return Do(x, (s, r) =>
                    {
                        k.Accumulate = op.Adds || s.AccumulateGradients;
                        k.Execute(r);
                    });
                }
            case RmsNormOp norm:
                {
                    var (width, groups) = RmsNormOp.Groups(x, node.Inputs[2]!);
                    var k = new RmsNormBackward<E>(_threads, width, norm.Epsilon, rows * groups, op.Parameters, norm.AddOne ? 1 : 0)
                    {
                        Gradient = dy,
                        Input = T(x),
                        Weight = weight,
                        Addend = addend,
                        InputGradient = dx,
                        WeightGradient = dw,
                    };
                    ScratchBytes += k.ScratchBytes;
                    return Do(x, (s, r) =>
                    {
                        k.Accumulate = op.Adds || s.AccumulateGradients;
                        k.Execute(r * groups);
                    });
                }
            default:
                throw new NotSupportedException(op.Name);
        }
    }

    private T Attention<T>(int headDim, Func<T> make, long bytes) where T : AttentionKernel
    {
        if (!_attention.TryGetValue((typeof(T), headDim), out var kernel))
        {
            _attention[(typeof(T), headDim)] = kernel = make();
            _owned.Add(kernel);
            ScratchBytes += bytes;
        }
        return (T)kernel;
    }

    private AttentionForward<E> Forward<E>(int headDim) where E : unmanaged => Attention(
        headDim, () => new AttentionForward<E>(_threads, headDim), AttentionForward<E>.WorkspaceBytes(_threads.Count, headDim));

    private Runs BindAttention<E>(Node node, AttentionOp op, ITensorAddresses at) where E : unmanaged
    {
        var k = Forward<E>(op.HeadDim);
        var bound = new AttentionAddresses(node, at, 0, node.Output, node.Outputs[1], node.Inputs[3]!, node.Inputs[4]);
        var pictures = node.Inputs[0]!.Shape.Kind == RowKind.Pictures;
        return new Runs(s =>
        {
            Set(k, op, bound, s);
            k.Execute(pictures ? s.Size.Pictures : s.Size.Sequences);
        });
    }

    private Runs BindAttentionGrad<E>(Node node, AttentionGradOp op, ITensorAddresses at, BatchSize capacity) where E : unmanaged
    {
        var forward = op.Forward;
        var k = Attention(
            forward.HeadDim, () => new AttentionBackward<E>(_threads, forward.HeadDim), AttentionBackward<E>.WorkspaceBytes(_threads.Count, forward.HeadDim));
        ScratchBytes += k.Reserve(Longest(node.Inputs[1]!.Shape, capacity));
        var bound = new AttentionAddresses(node, at, 1, node.Inputs[4]!, node.Inputs[5]!, node.Inputs[6]!, node.Inputs[7]);
        var dout = at.Of(node.Inputs[0]!);
        var pictures = node.Inputs[1]!.Shape.Kind == RowKind.Pictures;
        var next = 0;
        nint Next(bool wanted) => wanted ? at.Of(node.Outputs[next++]) : 0;
        nint dq = Next(op.Query), dk = Next(op.Key), dv = Next(op.Value);
        return new Runs(s =>
        {
            Set(k, forward, bound, s);
            k.DOut = (E*)dout;
            k.DQ = (E*)dq;
            k.DK = (E*)dk;
            k.DV = (E*)dv;
            k.Execute(pictures ? s.Size.Pictures : s.Size.Sequences);
        });
    }

    /// <summary>The longest sequence that batches of that size may have; for pictures, the rows of one.</summary>
    private static int Longest(Shape rows, BatchSize capacity) =>
        rows.Kind == RowKind.Pictures ? rows.FixedRows : (int)Math.Min(capacity.Tokens, Math.Sqrt(capacity.SquaredLengths));

    private sealed class AttentionAddresses(Node node, ITensorAddresses at, int first, Tensor output, Tensor lse, Tensor cuSeqlens, Tensor? visible)
    {
        public readonly Shape Rows = node.Inputs[first]!.Shape;
        public readonly nint Q = at.Of(node.Inputs[first]!), K = at.Of(node.Inputs[first + 1]!), V = at.Of(node.Inputs[first + 2]!);
        public readonly nint Out = at.Of(output), Lse = at.Of(lse), CuSeqlens = at.Of(cuSeqlens), Visible = visible is null ? 0 : at.Of(visible);
    }

    private static void Set<E>(AttentionKernel<E> k, AttentionOp op, AttentionAddresses at, StepArguments s) where E : unmanaged
    {
        k.Q = (E*)at.Q;
        k.K = (E*)at.K;
        k.V = (E*)at.V;
        k.Out = (E*)at.Out;
        k.Lse = (float*)at.Lse;
        k.CuSeqlens = (int*)at.CuSeqlens;
        k.KeyVisible = (int*)at.Visible;
        (k.Heads, k.KvHeads, k.HeadDim, k.Scale) = (op.Heads, op.KvHeads, op.HeadDim, op.Scale);
        (k.Causal, k.Window, k.Dropout, k.Softcap) = (op.Mask.Causal, op.Mask.Window, op.Dropout, op.Softcap);
        (k.Seed, k.Stream, k.Step, k.TokensBefore) = (s.Seed, op.Stream, s.Step, at.Rows.RowsBefore(s.Before));
    }

    /// <summary>Row losses, and the rows that have a label, for as many rows as a batch may have.</summary>
    private sealed class LossScratch : IDisposable
    {
        public readonly int Rows;
        public readonly float* RowLosses;
        public readonly int* Labels;
        public readonly int* Index;

        public LossScratch(int rows)
        {
            Rows = rows;
            RowLosses = (float*)NativeMemory.AlignedAlloc((nuint)rows * 4 + 64, 64);
            Labels = (int*)NativeMemory.AlignedAlloc((nuint)rows * 4 + 64, 64);
            Index = (int*)NativeMemory.AlignedAlloc((nuint)rows * 4 + 64, 64);
        }

        public long Bytes => 3 * ((long)Rows * 4 + 64);

        public void Dispose()
        {
            NativeMemory.AlignedFree(RowLosses);
            NativeMemory.AlignedFree(Labels);
            NativeMemory.AlignedFree(Index);
        }
    }

    private LossScratch Losses(BatchSize capacity)
    {
        var rows = Math.Max(capacity.Tokens, capacity.Sequences);
        if (_losses is null || _losses.Rows < rows)
        {
            _losses = new LossScratch(rows);
            _owned.Add(_losses);
            ScratchBytes += _losses.Bytes;
        }
        return _losses;
    }

    private Runs BindLoss(Node node, ITensorAddresses at, BatchSize capacity)
    {
        var gradient = node.Op is LossGradOp;
        var op = node.Op is LossGradOp grad ? grad.Forward : node.Op;
        var logits = node.Inputs[0]!;
        float* x = (float*)at.Of(logits), result = (float*)at.Of(node.Output);
        var target = at.Of(node.Inputs[1]!);
        if (op is SquaredErrorOp)
        {
            var k = new MeanSquaredError { Logits = x, Targets = (float*)target, LogitsGradient = gradient ? result : null };
            return Do(logits, (s, rows) =>
            {
                k.InverseCount = s.InverseCount;
                var loss = k.Execute(rows);
                if (!gradient)
                    *result = (float)loss;
            });
        }
        var c = new CrossEntropy(_threads, logits.Shape.Columns)
        {
            Logits = x,
            Labels = (int*)target,
            LogitsGradient = gradient ? result : null,
            RowLosses = Losses(capacity).RowLosses,
        };
        return Do(logits, (s, rows) =>
        {
            c.InverseCount = s.InverseCount;
            var loss = c.Execute(rows);
            if (!gradient)
                *result = (float)loss;
        });
    }
}
