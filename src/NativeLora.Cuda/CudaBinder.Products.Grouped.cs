using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Modules that several adapters act on, each on its own rows.</summary>
internal sealed partial class CudaBinder
{
    [StructLayout(LayoutKind.Sequential)]
    private struct GroupedScaleArgs
    {
        public nint Y, Scale, Bias, Addend;
        public long Rows, Columns;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct GroupedColumnsArgs
    {
        public nint Ids, A, P;
        public long Tokens;
        public int Rank, Columns;
        public float Factor;
        public int Unused;
    }

    /// <summary>The slot of each adapter by its number, -1 for none.</summary>
    private sealed class SlotTable
    {
        private readonly int[] _slotOf;

        public SlotTable(IReadOnlyList<BankSlot> slots)
        {
            _slotOf = new int[slots.Max(s => s.Adapter) + 1];
            Array.Fill(_slotOf, -1);
            for (var i = 0; i < slots.Count; i++)
                _slotOf[slots[i].Adapter] = i;
        }

        public int Of(int adapter) => (uint)adapter < (uint)_slotOf.Length ? _slotOf[adapter] : -1;
    }

    /// <summary>
    /// Runs of rows as on the CPU: those of the base and of plain LoRA share one base product, to which LoRA's is then added row group by row
    /// group; rows of an adapter with its own weight, bias or DoRA have a product of their own.
    /// </summary>
    private sealed class GroupedLora : Kernel
    {
        private readonly CudaFunction _scale;
        private readonly Shape _shape;
        private readonly SlotTable _table;
        private readonly Slot _base;
        private readonly Slot[] _slots;
        private readonly nint _y, _addend;
        private readonly int _outside, _bytes;

        /// <param name="Own">All of a run of rows; DoRA's factor and what comes after it left out.</param>
        /// <param name="Down">P = s·x Aᵀ, rows close together from where the run's begin; null: no adapter of a rank.</param>
        /// <param name="Adds">P Bᵀ on top of what is there.</param>
        /// <param name="Shares">Whether the base's product serves.</param>
        /// <param name="Dora">DoRA's factor, or 0.</param>
        /// <param name="Bias">Bias that comes after DoRA's factor.</param>
        private sealed record Slot(RowProduct Own, RowProduct? Down, RowProduct? Adds, bool Shares, nint Dora, nint Bias);

        public GroupedLora(CudaBinder binder, Node node, GroupedLoraOp op, ITensorAddresses at, BatchSize capacity)
        {
            var (inputs, output, scratch) = (node.Inputs, node.Output, node.Outputs[1]);
            var (x, weight, bias, addend) = (inputs[0]!, inputs[1]!, inputs[2], inputs[3]);
            var type = ProductType(node);
            var mostRows = output.Shape.Rows(capacity);
            _shape = output.Shape;
            _outside = output.Shape.Columns;
            _bytes = Bytes(output.Type);
            (_y, _addend) = (at.Of(output), CudaBinder.Of(addend, at));
            _scale = binder.Function("grouped_scale", output.Type);
            _table = new SlotTable(op.Slots);
            _slots = new Slot[op.Slots.Count];

            RowProduct Product(ProductOperand a, int k, ProductOperand b, bool turned, int n, float alpha, nint b0, nint add, nint c, ElementType cType, int pitch) =>
                new RowProduct(binder, mostRows)
                {
                    N = n,
                    K = k,
                    Alpha = alpha,
                    A = a,
                    B = b,
                    TurnB = turned,
                    Bias = b0,
                    Addend = add,
                    AddendType = output.Type,
                    C = c,
                    CType = cType,
                    CPitch = pitch,
                }.Prepare();

            RowProduct Whole(Tensor w, nint b0, nint add) => Product(
                binder.Operand(x, at, capacity, type, "product.a"), x.Shape.Columns,
                binder.Operand(w, at, capacity, type, "product.b", inParts: !op.FanInFanOut), !op.FanInFanOut, _outside, 1, b0, add, _y, output.Type, 0);

            _base = new Slot(Whole(weight, CudaBinder.Of(bias, at), _addend), null, null, true, 0, 0);
            for (var i = 0; i < _slots.Length; i++)
            {
                var (slot, first) = (op.Slots[i], GroupedLoraOp.FirstSlot + (i * GroupedLoraOp.SlotInputs));
                var own = slot.OwnBias ? inputs[first + 3] : bias;
                var dora = CudaBinder.Of(inputs[first + 2], at);
                var main = Whole(slot.InFull ? inputs[first]! : weight, dora != 0 ? 0 : CudaBinder.Of(own, at), dora != 0 ? 0 : _addend);
                RowProduct? down = null, adds = null;
                if (!slot.InFull && slot.Rank > 0)
                {
                    var (a, b) = (inputs[first]!, inputs[first + 1]!);
                    var p = at.Of(scratch);
                    var factor = binder.Operand(b, at, capacity, type, "product.b2");
                    var kept = new ProductOperand(binder, p, ElementType.F32, slot.Rank, mostRows, type, "product.a2") { Pitch = scratch.Shape.Columns };
                    down = Product(binder.Operand(x, at, capacity, type, "product.a"), x.Shape.Columns, binder.Operand(a, at, capacity, type, "product.b2"), true, slot.Rank,
                        slot.Scaling, 0, 0, p, ElementType.F32, scratch.Shape.Columns);
                    adds = Product(kept, slot.Rank, factor, true, _outside, 1, 0, _y, _y, output.Type, 0);
                    main.Extend(kept, factor, turned: true, slot.Rank);
                }
                _slots[i] = new Slot(main, down, adds, !slot.InFull && !slot.UseDora && !slot.OwnBias, dora, CudaBinder.Of(own, at));
            }
        }

        public override void Execute(StepArguments step)
        {
            var segments = step.Segments!.All;
            if (segments.Length == 1)
            {
                Own(SlotOf(segments[0].Adapter), 0, _shape.Rows(step.Size));
                return;
            }
            for (int from = 0, to; from < segments.Length; from = to)
            {
                var (first, count) = segments[from].Rows(_shape);
                to = from + 1;
                var slot = SlotOf(segments[from].Adapter);
                if (!slot.Shares)
                {
                    Own(slot, first, count);
                    continue;
                }
                for (; to < segments.Length && SlotOf(segments[to].Adapter).Shares; to++)
                    count += segments[to].Rows(_shape).Count;
                Own(_base, first, count);
                for (var i = from; i < to; i++)
                {
                    var lora = SlotOf(segments[i].Adapter);
                    var (row, rows) = segments[i].Rows(_shape);
                    lora.Down?.Run(row, rows);
                    lora.Adds?.Run(row, rows);
                }
            }
        }

        private Slot SlotOf(int adapter) => _table.Of(adapter) is >= 0 and var slot ? _slots[slot] : _base;

        /// <summary>Everything of a run of rows in one go.</summary>
        private void Own(Slot slot, int first, int count)
        {
            slot.Down?.Run(first, count);
            slot.Own.Run(first, count);
            if (slot.Dora == 0 || count == 0)
                return;
            var from = (nint)((long)first * _outside * _bytes);
            var a = new GroupedScaleArgs { Y = _y + from, Scale = slot.Dora, Bias = slot.Bias, Addend = _addend == 0 ? 0 : _addend + from, Rows = count, Columns = _outside };
            _scale.Launch(Blocks(a.Rows * a.Columns, 256), 256, in a);
        }
    }

    /// <summary>Adapters on an embedding: the sum is taken as it is, then each run of tokens gets its adapter's share.</summary>
    private sealed class GroupedEmbedding : Kernel
    {
        private readonly CudaFunction _columns;
        private readonly ProductFinish _copy;
        private readonly SlotTable _table;
        private readonly (GroupedColumnsArgs Columns, RowProduct Product)[] _slots;
        private readonly nint _ids, _p, _sum, _y;
        private readonly ElementType _type;
        private readonly int _width, _rank;

        public GroupedEmbedding(CudaBinder binder, Node node, GroupedEmbeddingOp op, ITensorAddresses at, BatchSize capacity)
        {
            var (output, scratch) = (node.Output, node.Outputs[1]);
            (_ids, _sum, _y, _p) = (at.Of(node.Inputs[0]!), at.Of(node.Inputs[1]!), at.Of(output), at.Of(scratch));
            (_type, _width, _rank) = (output.Type, output.Shape.Columns, scratch.Shape.Columns);
            _columns = binder.Function("grouped_columns_f32");
            _copy = new ProductFinish(binder, _type);
            _table = new SlotTable(op.Slots);
            _slots = new (GroupedColumnsArgs, RowProduct)[op.Slots.Count];
            var (type, mostRows) = (ProductType(node), output.Shape.Rows(capacity));
            for (var i = 0; i < _slots.Length; i++)
            {
                var (slot, a) = (op.Slots[i], node.Inputs[2 + (2 * i)]!);
                var product = new RowProduct(binder, mostRows)
                {
                    N = _width,
                    K = slot.Rank,
                    A = new ProductOperand(binder, _p, ElementType.F32, slot.Rank, mostRows, type, "product.a2") { Pitch = _rank },
                    B = binder.Operand(node.Inputs[3 + (2 * i)]!, at, capacity, type, "product.b2"),
                    TurnB = true,
                    Addend = _y,
                    AddendType = _type,
                    C = _y,
                    CType = _type,
                }.Prepare();
                _slots[i] = (new GroupedColumnsArgs { A = at.Of(a), Rank = slot.Rank, Columns = a.Shape.Columns, Factor = op.Scale * slot.Scaling }, product);
            }
        }

        public override void Execute(StepArguments step)
        {
            if (_sum != _y)
                _copy.Run(step.Size.Tokens, _width, 0, 0, 0, _sum, _type, _width, _y, _width);
            foreach (var segment in step.Segments!.All)
            {
                if (_table.Of(segment.Adapter) is not (>= 0 and var slot) || segment.Tokens == 0)
                    continue;
                var (columns, product) = _slots[slot];
                columns.Ids = _ids + ((nint)segment.FirstToken * 4);
                columns.P = _p + (nint)((long)segment.FirstToken * _rank * 4);
                columns.Tokens = segment.Tokens;
                _columns.Launch(Blocks((long)segment.Tokens * columns.Rank, 256), 256, in columns);
                product.Run(segment.FirstToken, segment.Tokens);
            }
        }
    }
}
