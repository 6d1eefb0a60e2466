using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

internal sealed partial class CudaBinder
{
    [StructLayout(LayoutKind.Sequential)]
    private struct LossLabelsArgs
    {
        public nint Labels, Index, Kept, Count;
        public int Rows;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct LossRowsArgs
    {
        public nint From, To, Index, Count;
        public int First, Rows, Columns;
    }

    /// <summary>
    /// LM head and loss in chunks of the rows that have a label, listed by a kernel. A chunk's gradient is made over its logits, in the
    /// type of the products; a weight of another type is converted a part of its rows at a time.
    /// </summary>
    private sealed class CudaLmHead : Kernel
    {
        private readonly CudaBlas _blas;
        private readonly LmHeadLossOp _op;
        private readonly CudaFunction _labels, _gather, _loss, _sum;
        private readonly CudaFunction? _clearIgnored, _scatter;
        private readonly ProductFinish? _clear;
        private readonly ProductOperand _weight;
        private readonly CudaScratch _scratch;
        private readonly int _lossThreads, _hidden, _vocabulary, _part, _capacity;
        private readonly ElementType _type;
        private readonly nint _h, _dh, _dw, _logits, _rows, _givenLabels, _result;

        public CudaLmHead(CudaBinder binder, Node node, LmHeadLossOp op, ITensorAddresses at, BatchSize capacity)
        {
            var (h, weight) = (node.Inputs[0]!, node.Inputs[1]!);
            (_blas, _op, _type, _capacity) = (binder.Blas, op, h.Type, capacity.Tokens);
            (_hidden, _vocabulary) = (h.Shape.Columns, weight.Shape.FixedRows);
            (_h, _givenLabels) = (at.Of(h), at.Of(node.Inputs[2]!));
            (_result, _logits, _rows) = (at.Of(node.Output), at.Of(node.Outputs[1]), at.Of(node.Outputs[2]));
            _dh = op.InputGradient ? at.Of(node.Outputs[3]) : 0;
            _dw = op.WeightGradient ? at.Of(node.Outputs[^1]) : 0;
            _labels = binder.Function("loss_labels");
            _gather = binder.Function("loss_gather", _type);
            (_loss, _lossThreads) = binder.CrossEntropyKernel(_vocabulary, _type);
            _sum = binder.Function("loss_sum");
            if (_dh != 0)
                (_clearIgnored, _scatter) = (binder.Function("loss_clear_ignored", _type), binder.Function("loss_scatter", _type));
            if (_dw != 0)
                _clear = new ProductFinish(binder, ElementType.F32);
            // Indices, labels and losses of the rows with a label, then how many they are.
            _scratch = binder.Scratch("loss", 12L * _capacity + 4);
            _weight = binder.Operand(weight, at, capacity, _type, "product.b", inParts: true);
            _part = (int)Math.Min(_vocabulary, _weight.MostRowsAtOnce);
        }

        public override void Execute(StepArguments step)
        {
            var tokens = step.Size.Tokens;
            var labels = step.LabelledTokens < 0 ? tokens : Math.Min(step.LabelledTokens, tokens);
            var index = _scratch.Address;
            var (kept, losses, count) = (index + 4 * _capacity, index + 8 * _capacity, index + 12 * _capacity);
            if (tokens > 0)
            {
                var list = new LossLabelsArgs { Labels = _givenLabels, Index = index, Kept = kept, Count = count, Rows = tokens };
                _labels.Launch(1, 1024, in list);
                var clear = new LossRowsArgs { To = _dh, Index = _givenLabels, Rows = tokens, Columns = _hidden };
                _clearIgnored?.Launch(Blocks(tokens, 1), 256, in clear);
            }
            var adds = _op.Adds || step.AccumulateGradients;
            if (_dw != 0 && labels == 0 && !adds)
                _clear!.Run(_vocabulary, _hidden, 0, 0, 0, 0, ElementType.F32, 0, _dw, _hidden);
            // 0: a part at a time.
            var whole = _part == _vocabulary && labels > 0 ? _weight.Ready(0, _vocabulary) : 0;
            for (var first = 0; first < labels; first += _op.Chunk)
            {
                var rows = Math.Min(_op.Chunk, labels - first);
                var a = new CrossEntropyArgs
                {
                    Logits = _logits,
                    Labels = kept,
                    Gradient = _dh != 0 || _dw != 0 ? _logits : 0,
                    Losses = losses,
                    Count = count,
                    First = first,
                    Rows = rows,
                    Columns = _vocabulary,
                    InverseCount = step.InverseCount,
                    Softcap = _op.Softcap,
                };
                Chunk(a, index, whole, adds || first > 0);
            }
            var sum = new LossSumArgs { Losses = losses, Count = tokens > 0 ? count : 0, Result = _result, Rows = labels, InverseCount = step.InverseCount };
            _sum.Launch(1, 256, in sum);
        }

        private void Chunk(in CrossEntropyArgs loss, nint index, nint whole, bool adds)
        {
            var rows = loss.Rows;
            var take = new LossRowsArgs { From = _h, To = _rows, Index = index, Count = loss.Count, First = loss.First, Rows = rows, Columns = _hidden };
            _gather.Launch(Blocks(rows, 1), 256, in take);
            for (var part = 0; part < _vocabulary; part += _part)
            {
                var n = Math.Min(_part, _vocabulary - part);
                var w = whole != 0 ? whole : _weight.Ready(part, n);
                _blas.Product(false, true, rows, n, _hidden, 1, _rows, _type, _hidden, w, _type, _hidden, 0, _logits + 4 * (nint)part, ElementType.F32, _vocabulary);
            }
            _loss.Launch(Blocks(rows, 1), _lossThreads, in loss);
            // A bf16 gradient fills half of each row of the logits.
            var stride = _type == ElementType.BF16 ? 2L * _vocabulary : _vocabulary;
            if (_dw != 0)
                _blas.Product(true, false, _vocabulary, _hidden, rows, 1, _logits, _type, stride, _rows, _type, _hidden, adds ? 1 : 0, _dw, ElementType.F32, _hidden);
            if (_dh == 0)
                return;
            for (var part = 0; part < _vocabulary; part += _part)
            {
                var k = Math.Min(_part, _vocabulary - part);
                var w = whole != 0 ? whole : _weight.Ready(part, k);
                _blas.Product(
                    false, false, rows, _hidden, k, 1, _logits + (nint)_type.Bytes(part), _type, stride, w, _type, _hidden, part > 0 ? 1 : 0, _rows, ElementType.F32, _hidden);
            }
            var put = take with { From = _rows, To = _dh };
            _scatter!.Launch(Blocks(rows, 1), 256, in put);
        }
    }
}
