using NativeLora.Graphs;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Gives each node its launches, with addresses set once. One part a family of ops.</summary>
internal sealed partial class CudaBinder(CudaContext context, CudaModules modules, CudaBlas blas, bool plans = false) : IDisposable
{
    private readonly CudaContext _context = context;
    private readonly CudaModules _modules = modules;
    private readonly CudaBlas _blas = blas;
    private readonly Dictionary<string, CudaScratch> _scratch = [];

    public Kernel Bind(Node node, ITensorAddresses at, BatchSize capacity) =>
        BindRows(node, at, capacity) ?? BindAttention(node, at, capacity) ?? BindProduct(node, at, capacity) ?? BindLoss(node, at, capacity)
        ?? throw new NotSupportedException($"CUDA has no kernel for {node.Op.Name}");

    /// <summary>cuBLAS.</summary>
    private CudaBlas Blas => _blas;

    /// <summary>Bytes of scratch that nodes bound so far hold.</summary>
    public long ScratchBytes => _scratch.Values.Sum(s => s.Bytes);

    /// <summary>A kernel by its name, which is its own among all modules.</summary>
    private CudaFunction Function(string name) => _modules.Function(name);

    /// <summary>The kernel for a type of activations: <c>name_f32</c> or <c>name_bf16</c>.</summary>
    private CudaFunction Function(string name, ElementType type) => Function(type == ElementType.BF16 ? $"{name}_bf16" : $"{name}_f32");

    /// <summary>Scratch on the device that nodes with the same key share; as large as the largest asked for. Read the address when the node runs.</summary>
    private CudaScratch Scratch(string key, long bytes)
    {
        if (!_scratch.TryGetValue(key, out var scratch))
            _scratch[key] = scratch = new CudaScratch(plans ? null : _context);
        scratch.Reserve(bytes);
        return scratch;
    }

    public void Dispose()
    {
        foreach (var scratch in _scratch.Values)
            scratch.Dispose();
        _scratch.Clear();
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

    /// <summary>Blocks of <paramref name="each"/> that cover <paramref name="count"/>, at most <paramref name="most"/>: for grid-stride loops.</summary>
    private static int Blocks(long count, int each, int most = 65_535) => (int)Math.Min(most, (count + each - 1) / each);

    /// <summary>Address, 0 for none.</summary>
    private static nint Of(Tensor? tensor, ITensorAddresses at) => tensor is null ? 0 : at.Of(tensor);
}
