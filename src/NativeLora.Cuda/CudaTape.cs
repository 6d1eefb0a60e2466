namespace NativeLora.Devices.Cuda;

/// <summary>
/// Records the launches of a step as a graph where the same step comes again, and then launches them all in one call. Launches hold their
/// arguments: a recording is good for one batch size and for the same values of all else that kernels read. Steps with random numbers
/// never come again, and are never recorded.
/// </summary>
internal sealed unsafe class CudaTape(CudaContext context) : StepTape
{
    private const int Most = 16, ThreadLocal = 1;

    // 0: seen once. What was seen once is only recorded when it comes again: by then cuBLAS has loaded what it needs.
    private readonly Dictionary<StepKey, nint> _graphs = [];
    private readonly Queue<StepKey> _order = new(Most + 1);
    private StepReads _reads;
    private int _scratch;

    /// <inheritdoc/>
    public override void Run(ReadOnlySpan<Kernel> kernels, StepArguments step)
    {
        if (step.Segments is not null || (step.Reads & StepReads.Random) != 0)
        {
            Execute(kernels, step);
            return;
        }
        // Recordings hold the addresses of scratch.
        if (_scratch != context.ScratchVersion)
            Clear();
        var key = step.Key;
        if (_graphs.TryGetValue(key, out var graph) && step.Reads == _reads)
        {
            if (graph == 0)
                _graphs[key] = graph = Record(kernels, step);
            var driver = context.Driver;
            context.Enter();
            driver.Check(driver.GraphLaunch(graph, context.Stream), "launch of a recorded step");
            return;
        }
        Execute(kernels, step);
        if (step.Reads != _reads)
        {
            Clear();
            _reads = step.Reads;
        }
        if (_graphs.TryAdd(step.Key, 0))
            _order.Enqueue(step.Key);
        if (_order.Count > Most && _graphs.Remove(_order.Dequeue(), out var oldest))
            Destroy(oldest);
    }

    private static void Execute(ReadOnlySpan<Kernel> kernels, StepArguments step)
    {
        foreach (var kernel in kernels)
            kernel.Execute(step);
    }

    private nint Record(ReadOnlySpan<Kernel> kernels, StepArguments step)
    {
        context.Enter();
        var driver = context.Driver;
        driver.Check(driver.BeginCapture(context.Stream, ThreadLocal), "cuStreamBeginCapture");
        nint graph = 0, made;
        try
        {
            Execute(kernels, step);
        }
        finally
        {
            var ended = driver.EndCapture(context.Stream, &graph);
            if (ended != 0)
                graph = 0;
        }
        if (graph == 0)
            throw new RunException("CUDA: a step could not be recorded");
        var result = driver.GraphInstantiate(&made, graph, 0);
        driver.GraphDestroy(graph);
        driver.Check(result, "cuGraphInstantiate");
        return made;
    }

    private void Clear()
    {
        foreach (var graph in _graphs.Values)
            Destroy(graph);
        _graphs.Clear();
        _order.Clear();
        _scratch = context.ScratchVersion;
    }

    private void Destroy(nint graph)
    {
        if (graph == 0 || context.IsDisposed)
            return;
        context.Enter();
        context.Driver.GraphExecDestroy(graph);
    }

    /// <inheritdoc/>
    public override void Dispose() => Clear();
}
