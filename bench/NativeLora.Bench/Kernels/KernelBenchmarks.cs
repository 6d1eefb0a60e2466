using System.Globalization;
using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Columns;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Exporters;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Loggers;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using NativeLora.Bench.Compare;
using NativeLora.Devices.Cpu;
using Perfolizer.Horology;

namespace NativeLora.Bench.Kernels;

/// <summary>Sizes that a benchmark runs at, with what one operation computes and moves.</summary>
/// <param name="Name">Text of the table.</param>
/// <param name="Flops">Floating-point operations; 0 if they are not what bounds it.</param>
/// <param name="Bytes">Bytes read and written; 0 if they are not what bounds it.</param>
public abstract record Work(string Name, double Flops, double Bytes)
{
    /// <inheritdoc/>
    public sealed override string ToString() => Name;
}

/// <summary>Runs the benchmarks in this process, where the kernels are visible.</summary>
internal static class KernelBenchmarks
{
    public static int Threads { get; private set; } = Environment.ProcessorCount;

    public static void Run(Options options)
    {
        Threads = options.Number("threads", Threads);
        var config = new ManualConfig()
            .AddJob(Job.Default.WithToolchain(InProcessEmitToolchain.Instance)
                .WithIterationTime(TimeInterval.FromMilliseconds(200)).WithWarmupCount(3).WithIterationCount(options.Number("iterations", 9)))
            .WithSummaryStyle(SummaryStyle.Default.WithMaxParameterColumnWidth(60))
            .AddColumnProvider(DefaultColumnProviders.Instance)
            .AddColumn(new RateColumn("GFLOP/s", w => w.Flops), new RateColumn("GB/s", w => w.Bytes))
            .AddLogger(ConsoleLogger.Default)
            .AddExporter(MarkdownExporter.GitHub)
            .WithOptions(ConfigOptions.DisableOptimizationsValidator);
        var filters = options.Words.Count == 0 ? ["*"] : options.Words.Select(w => w.Contains('*') ? w : $"*{w}*");
        BenchmarkSwitcher.FromAssembly(typeof(KernelBenchmarks).Assembly).Run([.. filters.SelectMany(f => new[] { "--filter", f })], config);
    }

    /// <summary>Flops or bytes a nanosecond.</summary>
    private sealed class RateColumn(string name, Func<Work, double> amount) : IColumn
    {
        public string Id => name;

        public string ColumnName => name;

        public bool AlwaysShow => true;

        public ColumnCategory Category => ColumnCategory.Custom;

        public int PriorityInCategory => 0;

        public bool IsNumeric => true;

        public UnitType UnitType => UnitType.Dimensionless;

        public string Legend => $"{name} at the mean";

        public bool IsAvailable(Summary summary) => true;

        public bool IsDefault(Summary summary, BenchmarkCase benchmarkCase) => false;

        public string GetValue(Summary summary, BenchmarkCase benchmarkCase) =>
            benchmarkCase.Parameters.Items.Select(p => p.Value).OfType<Work>().FirstOrDefault() is { } work && amount(work) > 0
            && summary[benchmarkCase]?.ResultStatistics is { } statistics
                ? (amount(work) / statistics.Mean).ToString("0.0", CultureInfo.InvariantCulture)
                : "";

        public string GetValue(Summary summary, BenchmarkCase benchmarkCase, SummaryStyle style) => GetValue(summary, benchmarkCase);
    }
}

/// <summary>Threads and buffers of a benchmark.</summary>
public abstract class KernelBenchmark
{
    private readonly List<IDisposable> _owned = [];

    private protected CpuDevice Device { get; private set; } = null!;

    private protected void Begin() => Device = new CpuDevice(KernelBenchmarks.Threads);

    private protected T Own<T>(T owned) where T : IDisposable
    {
        _owned.Add(owned);
        return owned;
    }

    private protected HostFloats Random(int count, double std = 1) => Own(new HostFloats(Device, Values.Normal(count, (ulong)_owned.Count, std)));

    /// <summary>Frees what was made.</summary>
    [GlobalCleanup]
    public void End()
    {
        _owned.ForEach(o => o.Dispose());
        _owned.Clear();
        Device?.Dispose();
    }
}
