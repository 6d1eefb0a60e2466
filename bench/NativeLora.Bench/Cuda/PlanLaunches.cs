using NativeLora.Devices;
using NativeLora.Devices.Cuda;
using NativeLora.Graphs;
using NativeLora.Tensors;

namespace NativeLora.Bench.Cuda;

/// <summary>What a node of a plan launches.</summary>
/// <param name="Node">The node.</param>
/// <param name="Kernels">Launches of our kernels.</param>
/// <param name="Products">Calls of cuBLAS.</param>
/// <param name="ProductBytes">What these read and write, each operand once a call.</param>
internal sealed record NodeLaunches(Node Node, int Kernels, int Products, long ProductBytes);

/// <summary>
/// Counts what the nodes of a plan launch: the binder runs them on the stand-in for the driver, which counts and executes nothing, at
/// addresses that hold nothing. So a plan of any size is counted in seconds.
/// </summary>
internal static unsafe class PlanLaunches
{
    // Of NlEmulatorCounters in tests/cuda-emulator/cuda_api.h.
    private const int Launches = 0, BlasCalls = 12, Counters = 64;

    /// <summary>Counts every node of a step over a batch at capacity, all of whose tokens have a label.</summary>
    /// <param name="device">On the stand-in.</param>
    /// <param name="plan">The plan.</param>
    public static IReadOnlyList<NodeLaunches> Count(CudaDevice device, MemoryPlan plan)
    {
        var driver = device.Context.Driver;
        var (dry, read, moved) = (driver.Find("nlEmulatorSetDry"), driver.Find("nlEmulatorCounters"), driver.Find("nlEmulatorBlasBytes"));
        if (dry == 0 || read == 0 || moved == 0)
            throw new InputException("launches are counted by the stand-in for CUDA of tests/cuda-emulator: build it with cmake");
        var (at, step) = (new Nowhere(plan), new StepArguments { Size = plan.Capacity, InverseCount = 1, LabelledTokens = plan.Capacity.Tokens });
        var counts = new List<NodeLaunches>();
        var counters = stackalloc ulong[Counters];
        (ulong Kernels, ulong Products, ulong Bytes) Now()
        {
            device.Wait();
            ((delegate* unmanaged<ulong*, void>)read)(counters);
            return (counters[Launches], counters[BlasCalls], ((delegate* unmanaged<ulong>)moved)());
        }
        device.Wait();
        ((delegate* unmanaged<int, void>)dry)(1);
        try
        {
            foreach (var node in plan.Graph.Nodes)
            {
                var kernel = device.Bind(node, at, plan.Capacity);
                var before = Now();
                kernel.Execute(step);
                var after = Now();
                counts.Add(new NodeLaunches(node, (int)(after.Kernels - before.Kernels), (int)(after.Products - before.Products), (long)(after.Bytes - before.Bytes)));
            }
        }
        finally
        {
            ((delegate* unmanaged<int, void>)dry)(0);
        }
        return counts;
    }

    /// <summary>Addresses as a plan lays them out, in memory that is not there.</summary>
    private sealed class Nowhere(MemoryPlan plan) : ITensorAddresses
    {
        private const long Arena = 1L << 44;

        private const long Parameters = 1L << 45, Gradients = 1L << 46;

        private readonly Dictionary<Tensor, nint> _others = [];
        private readonly Dictionary<string, long> _offsets = OffsetsOf(plan);
        private long _end = 1L << 47;

        public nint Of(Tensor tensor)
        {
            if (tensor.InArena)
                return (nint)(Arena + plan.Offset(tensor));
            if (tensor.Category == TensorCategory.Parameter)
                return (nint)(Parameters + _offsets[tensor.Name]);
            if (tensor.Category == TensorCategory.Gradient)
                return (nint)(Gradients + _offsets[tensor.Name["grad.".Length..]]);
            if (_others.TryGetValue(tensor, out var at))
                return at;
            _others[tensor] = at = (nint)_end;
            _end += (tensor.Bytes(plan.Capacity) + 511) / 256 * 256;
            return at;
        }

        /// <summary>Places in the flat block of a parameter store.</summary>
        private static Dictionary<string, long> OffsetsOf(MemoryPlan plan)
        {
            var (offsets, end) = (new Dictionary<string, long>(StringComparer.Ordinal), 0L);
            foreach (var tensor in plan.Graph.Trainable)
            {
                offsets[tensor.Name] = end;
                end += tensor.Bytes(plan.Capacity);
            }
            return offsets;
        }
    }
}
