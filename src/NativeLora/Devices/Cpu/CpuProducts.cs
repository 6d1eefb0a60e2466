using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;
using NativeLora.Training;

namespace NativeLora.Devices.Cpu;

/// <summary>The linear family: everything that is a matrix product.</summary>
internal sealed unsafe partial class CpuBinder
{
    /// <summary>[rows, columns] as it lies.</summary>
    private static GemmMatrix Plain(Tensor tensor, ITensorAddresses at) => new((void*)at.Of(tensor), tensor.Shape.Columns, false, tensor.Type);

    private static GemmMatrix Turned(Tensor tensor, ITensorAddresses at) => Plain(tensor, at).Transpose();

    // Beyond this a copy costs more memory than its packing costs time: an LM head is read row by row anyway.
    private const long MostPackedBytes = 64L << 20;

    /// <summary>Bytes of a weight packed for products; 0 where that would cost more than it gains.</summary>
    public long PackedBytes(Tensor weight, bool turned, bool brain)
    {
        var (k, n) = Sizes(weight, turned);
        var bytes = _gemm.PackedBytes(k, n, brain);
        // Blocks are there to save memory.
        return bytes > MostPackedBytes || weight.Type.IsBlock() ? 0 : bytes;
    }

    private static (int K, int N) Sizes(Tensor weight, bool turned) =>
        turned ? (weight.Shape.Columns, weight.Shape.FixedRows) : (weight.Shape.FixedRows, weight.Shape.Columns);

    /// <summary>A copy of a weight packed for products.</summary>
    public DeviceBuffer? Pack(Device device, Tensor weight, nint address, bool turned, bool brain)
    {
        var (k, n) = Sizes(weight, turned);
        var bytes = PackedBytes(weight, turned, brain);
        if (bytes == 0)
            return null;
        var buffer = device.Allocate(bytes);
        _gemm.PackWhole(new GemmMatrix((void*)address, weight.Shape.Columns, turned, weight.Type), k, n, brain, (void*)buffer.Address);
        return buffer;
    }

    private Product BindProduct(Node node, ITensorAddresses at)
    {
        GemmMatrix Weight(Tensor weight, bool turned, bool brain)
        {
            var matrix = turned ? Turned(weight, at) : Plain(weight, at);
            if (weight.Category == TensorCategory.Weight)
                matrix.Panels = (void*)at.Panels(weight, turned, brain);
            return matrix;
        }

        var inputs = node.Inputs;
        var output = node.Output;
        var product = new Product(_gemm, node.Op is WeightGradOp ? inputs[0]!.Shape : output.Shape);
        var g = new GemmArgs
        {
            C = (void*)at.Of(output),
            CType = output.Type,
            CStride = output.Shape.Columns,
            N = output.Shape.Columns,
            Brain = inputs.Any(IsBrain) || node.Outputs.Any(IsBrain),
        };
        void Bias(Tensor? bias) => g.Bias = bias is null ? null : (float*)at.Of(bias);
        void Addend(Tensor? addend)
        {
            g.Addend = addend is null ? null : (void*)at.Of(addend);
            g.AddendType = addend?.Type ?? ElementType.F32;
            g.AddendStride = addend?.Shape.Columns ?? 0;
        }
        switch (node.Op)
        {
            case LinearOp op:
                (g.A, g.B, g.K) = (Plain(inputs[0]!, at), Weight(inputs[1]!, !op.FanInFanOut, g.Brain), inputs[0]!.Shape.Columns);
                Bias(inputs[2]);
                Addend(inputs[3]);
                break;
            case LoraLinearOp op:
                {
                    var (dropped, a, p) = (inputs[1]!, inputs[4]!, node.Outputs[1]);
                    if (ReferenceEquals(inputs[0], dropped))
                    {
                        (g.Down, g.DownAlpha) = (Turned(a, at), op.Scaling);
                    }
                    else
                    {
                        product.First = new GemmArgs
                        {
                            A = Plain(dropped, at),
                            B = Turned(a, at),
                            K = dropped.Shape.Columns,
                            N = p.Shape.Columns,
                            Alpha = op.Scaling,
                            C = (void*)at.Of(p),
                            Brain = g.Brain,
                            CStride = p.Shape.Columns,
                        };
                        product.HasFirst = true;
                    }
                    (g.A, g.B, g.K) = (Plain(inputs[0]!, at), Weight(inputs[2]!, !op.FanInFanOut, g.Brain), inputs[0]!.Shape.Columns);
                    (g.A2, g.B2, g.K2) = (Plain(p, at), Turned(inputs[5]!, at), p.Shape.Columns);
                    Bias(inputs[3]);
                    Addend(inputs[6]);
                    break;
                }
            case LinearInputGradOp op:
                (g.A, g.B, g.K) = (Plain(inputs[0]!, at), op.FanInFanOut ? Turned(inputs[1]!, at) : Plain(inputs[1]!, at), inputs[0]!.Shape.Columns);
                Addend(inputs[2]);
                break;
            case LoraInputGradOp op:
                {
                    var (b, a, dp) = (inputs[3]!, inputs[4]!, node.Outputs[1]);
                    (g.A, g.B, g.K) = (Plain(inputs[0]!, at), op.FanInFanOut ? Turned(inputs[1]!, at) : Plain(inputs[1]!, at), inputs[0]!.Shape.Columns);
                    (g.A2, g.B2, g.K2) = (Plain(dp, at), Plain(a, at), dp.Shape.Columns);
                    (g.Down, g.DownAlpha) = (Plain(b, at), op.Scaling);
                    Addend(inputs[2]);
                    break;
                }
            case LoraDownGradOp op:
                (g.A, g.B, g.K, g.Alpha) = (Plain(inputs[0]!, at), Plain(inputs[1]!, at), inputs[0]!.Shape.Columns, op.Scaling);
                break;
            case WeightGradOp op:
                (g.A, g.B, g.M) = (Turned(inputs[0]!, at), Plain(inputs[1]!, at), output.Shape.FixedRows);
                product.RowsAreDepth = true;
                product.Adds = op.Adds;
                break;
            default:
                throw new NotSupportedException(node.Op.Name);
        }
        product.Main = g;
        return product;
    }

    /// <summary>One product, or LoRA's two. The number of rows (for a weight's gradient: the depth) comes with the batch.</summary>
    private sealed class Product(Gemm gemm, Shape rows) : Kernel
    {
        public GemmArgs Main, First;
        public bool HasFirst, RowsAreDepth, Adds;

        public override void Execute(StepArguments step)
        {
            var count = rows.Rows(step.Size);
            if (HasFirst)
            {
                First.M = count;
                gemm.Run(First);
            }
            if (RowsAreDepth)
            {
                Main.K = count;
                Main.Addend = Adds || step.AccumulateGradients ? Main.C : null;
                Main.AddendStride = Main.CStride;
            }
            else
            {
                Main.M = count;
            }
            gemm.Run(Main);
        }
    }

    /// <summary>LM head and loss in chunks of the rows that have a label.</summary>
    private sealed class LmHead : Kernel
    {
        private readonly Gemm _gemm;
        private readonly LmHeadLossOp _op;
        private readonly LossScratch _scratch;
        private readonly CrossEntropy _loss;
        private readonly SoftcapForward<float>? _cap;
        private readonly SoftcapBackward<float>? _capBackward;
        private readonly int _hidden, _vocabulary;
        private readonly float* _logits, _gradient, _rows, _dw, _result;
        private readonly void* _h, _dh;
        private readonly bool _brain;
        private readonly int* _labels;
        private readonly GemmMatrix _weight;

        public LmHead(CpuBinder binder, Node node, LmHeadLossOp op, ITensorAddresses at, LossScratch scratch)
        {
            (_gemm, _op, _scratch) = (binder._gemm, op, scratch);
            var (h, weight) = (node.Inputs[0]!, node.Inputs[1]!);
            (_hidden, _vocabulary) = (h.Shape.Columns, weight.Shape.FixedRows);
            _h = (void*)at.Of(h);
            _brain = h.Type == ElementType.BF16;
            _labels = (int*)at.Of(node.Inputs[2]!);
            _result = (float*)at.Of(node.Output);
            _logits = (float*)at.Of(node.Outputs[1]);
            _rows = (float*)at.Of(node.Outputs[2]);
            _dh = op.InputGradient ? (void*)at.Of(node.Outputs[3]) : null;
            _dw = op.WeightGradient ? (float*)at.Of(node.Outputs[^1]) : null;
            _weight = new GemmMatrix((void*)at.Of(weight), _hidden, false, weight.Type);
            var gradient = op.InputGradient || op.WeightGradient;
            _gradient = _logits;
            if (op.Softcap > 0)
            {
                _gradient = _logits + (long)op.Chunk * _vocabulary;
                _cap = new SoftcapForward<float>(binder._threads, _vocabulary, op.Softcap) { Input = _logits, Output = _logits };
                _capBackward = new SoftcapBackward<float>(binder._threads, _vocabulary, op.Softcap) { Output = _logits, Gradient = _gradient, InputGradient = _gradient };
            }
            _loss = new CrossEntropy(binder._threads, _vocabulary)
            {
                Logits = _logits,
                Labels = scratch.Labels,
                LogitsGradient = gradient ? _gradient : null,
                RowLosses = scratch.RowLosses,
            };
        }

        public override void Execute(StepArguments step)
        {
            var tokens = step.Size.Tokens;
            var count = 0;
            for (var t = 0; t < tokens; t++)
                if (_labels[t] != CrossEntropy.Ignored)
                    (_scratch.Labels[count], _scratch.Index[count++]) = (_labels[t], t);
            if (_dh is not null)
                NativeMemory.Clear(_dh, (nuint)tokens * (nuint)_hidden * (nuint)(_brain ? sizeof(ushort) : sizeof(float)));
            if (_dw is not null && count == 0 && !(_op.Adds || step.AccumulateGradients))
                NativeMemory.Clear(_dw, (nuint)_vocabulary * (nuint)_hidden * sizeof(float));
            _loss.InverseCount = step.InverseCount;
            for (var first = 0; first < count; first += _op.Chunk)
                Chunk(first, Math.Min(_op.Chunk, count - first), _op.Adds || step.AccumulateGradients || first > 0);
            *_result = (float)_loss.Sum(count);
        }

        private void Chunk(int first, int rows, bool add)
        {
            for (var r = 0; r < rows; r++)
                Take(_scratch.Index[first + r], _rows + (long)r * _hidden);
            var hidden = new GemmMatrix(_rows, _hidden);
            var gradient = new GemmMatrix(_gradient, _vocabulary);
            _gemm.Run(new GemmArgs
            {
                M = rows,
                N = _vocabulary,
                K = _hidden,
                A = hidden,
                B = _weight.Transpose(),
                Brain = _brain,
                C = _logits,
                CStride = _vocabulary,
            });
            _cap?.Execute(rows);
            _loss.ExecuteChunk(first, rows);
            if (_loss.LogitsGradient != null)
                _capBackward?.Execute(rows);
            if (_dw is not null)
            {
                _gemm.Run(new GemmArgs
                {
                    M = _vocabulary,
                    N = _hidden,
                    K = rows,
                    A = gradient.Transpose(),
                    B = hidden,
                    Brain = _brain,
                    Addend = add ? _dw : null,
                    AddendStride = _hidden,
                    C = _dw,
                    CStride = _hidden,
                });
            }
            if (_dh is null)
                return;
            _gemm.Run(new GemmArgs { M = rows, N = _hidden, K = _vocabulary, A = gradient, B = _weight, Brain = _brain, C = _rows, CStride = _hidden });
            for (var r = 0; r < rows; r++)
                Put(_rows + (long)r * _hidden, _scratch.Index[first + r]);
        }

        private void Take(int row, float* to)
        {
            if (_brain)
                RowMath.Convert((BFloat16*)_h + (long)row * _hidden, to, _hidden);
            else
                RowMath.Copy((float*)_h + (long)row * _hidden, to, _hidden);
        }

        private void Put(float* from, int row)
        {
            if (_brain)
                RowMath.Convert(from, (BFloat16*)_dh + (long)row * _hidden, _hidden);
            else
                RowMath.Copy(from, (float*)_dh + (long)row * _hidden, _hidden);
        }
    }
}

/// <summary>AdamW and the gradient norm over the flat blocks of a parameter store.</summary>
internal sealed unsafe class CpuOptimizer : OptimizerKernel
{
    private readonly AdamW? _adam;
    private readonly AdamW8Bit? _adam8;
    private readonly SumOfSquares _squares;
    private readonly long _count;
    private double _norm;

    public CpuOptimizer(CpuThreads threads, ParameterStore parameters)
    {
        if (parameters.Gradients is not { } gradients)
            throw new InvalidOperationException("the parameters have no gradients: they were made for inference");
        _count = parameters.Elements;
        if (parameters.Optimizer == OptimizerKind.AdamW8Bit)
            _adam8 = new AdamW8Bit(threads, [.. parameters.Names.Select(n => new MomentSegment(
                parameters.Place(n).Offset, parameters.Count(n), parameters.MomentOffset(n), parameters.Optimizer.IsQuantized(parameters.Count(n)), parameters.WeightDecay(n)))],
                parameters.Beta1, parameters.Beta2, parameters.Epsilon)
            {
                Parameters = (float*)parameters.Values.Address,
                Gradients = (float*)gradients.Address,
                FirstMoments = (byte*)parameters.FirstMoments!.Address,
                SecondMoments = (byte*)parameters.SecondMoments!.Address,
            };
        else
            _adam = new AdamW(threads, [.. parameters.Names.Select(n => new OptimizerSegment(parameters.Place(n).Offset, parameters.Count(n), parameters.WeightDecay(n)))],
                parameters.Beta1, parameters.Beta2, parameters.Epsilon)
            {
                Parameters = (float*)parameters.Values.Address,
                Gradients = (float*)gradients.Address,
                FirstMoments = (float*)parameters.FirstMoments!.Address,
                SecondMoments = (float*)parameters.SecondMoments!.Address,
            };
        _squares = new SumOfSquares(threads, _count) { Input = (float*)gradients.Address };
    }

    public override double GradientNorm() => _norm;

    public override void Update(int step, double learningRate, double maxNorm)
    {
        _norm = Math.Sqrt(_squares.Execute(_count));
        if (!double.IsFinite(_norm))
            return;
        var scale = maxNorm > 0 ? GradientClipping.Scale(_norm, maxNorm) : 1;
        _adam?.Execute(learningRate, step, scale);
        _adam8?.Execute(learningRate, step, scale);
    }
}
