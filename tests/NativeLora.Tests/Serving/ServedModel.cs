using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Cli.Verify;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Tests.Checkpoints;
using NativeLora.Training;

namespace NativeLora.Tests.Serving;

/// <summary>A model of the fixtures with its inputs, run with one adapter, several or none.</summary>
internal sealed class ServedModel : IDisposable
{
    private readonly Device? _owned;
    private readonly Device _device;
    private readonly SafeTensorsFile _inputs;
    private readonly TemporaryFolder _folder = new();
    private readonly string _name;

    public ServedModel(string name, Device? device = null)
    {
        _owned = device is null ? new CpuDevice(2) : null;
        _device = device ?? _owned!;
        _name = name;
        Pretrained = PretrainedModel.Open(Shared.Path("fixtures", "models", name, "model"), _device);
        Head = Pretrained.Model.OwnHead;
        _inputs = SafeTensorsFile.Open(Shared.Path("fixtures", "models", name, "inputs.safetensors"));
        Batch = new FixtureBatch(_inputs, "", Pretrained.Model, CaseVerifier.PadOf(Pretrained.Model));
        Capacity = CaseVerifier.Capacity(Batch);
    }

    public PretrainedModel Pretrained { get; }

    public ModelHead Head { get; }

    public FixtureBatch Batch { get; }

    public BatchSize Capacity { get; }

    public BuildOptions Options => new() { Head = Head, MaxLength = Batch.Width };

    public string Adapter(string variant, string part = "init") => Shared.Path("fixtures", "models", _name, "adapters", variant, part);

    /// <summary>The adapter after training: its settings lie with the one before.</summary>
    public string Final(string variant)
    {
        var to = Directory.CreateDirectory(_folder.File(variant)).FullName;
        File.Copy(Path.Combine(Adapter(variant), "adapter_config.json"), Path.Combine(to, "adapter_config.json"), overwrite: true);
        File.Copy(Path.Combine(Adapter(variant, "final"), "adapter_model.safetensors"), Path.Combine(to, "adapter_model.safetensors"), overwrite: true);
        return to;
    }

    public LoadedAdapter Load(string folder) => AdapterFile.Load(folder, Pretrained.Modules(Head));

    /// <summary>Logits of one adapter, or none, without a set.</summary>
    public float[] Alone(LoadedAdapter? adapter)
    {
        if (adapter is null)
        {
            var graph = Pretrained.NewGraph(Trainables.None);
            var outputs = Pretrained.Model.Build(graph, Options);
            graph.Keep(outputs.Logits!);
            using var session = new Session(_device, MemoryPlan.For(graph, Capacity), Pretrained.Weights, null);
            return Run(session, outputs);
        }
        using var model = TrainableModel.WithAdapters(Pretrained, Head, adapter.Config, adapter.Weights, training: false);
        var (adapted, made) = model.Build(Options);
        adapted.Keep(made.Logits!);
        using var over = model.NewSession(adapted, Capacity);
        return Run(over, made);
    }

    public float[] Run(Session session, ModelOutputs outputs, int[]? rows = null)
    {
        if (rows is null)
            session.Load(Batch.Packed);
        else
            session.Load(Batch.Packed, rows);
        session.Run();
        return session.Read(outputs.Logits!);
    }

    /// <summary>The rows of one sequence of the logits.</summary>
    public float[] Sequence(float[] logits, int sequence)
    {
        if (Head == ModelHead.SequenceClassification)
        {
            var classes = logits.Length / Batch.Rows;
            return logits.AsSpan(sequence * classes, classes).ToArray();
        }
        var columns = logits.Length / Batch.Packed.TokenCount;
        return logits.AsSpan(Batch.Packed.CuSeqlens[sequence] * columns, (Batch.Packed.CuSeqlens[sequence + 1] - Batch.Packed.CuSeqlens[sequence]) * columns).ToArray();
    }

    public static double Distance(float[] got, float[] wanted)
    {
        Assert.Equal(wanted.Length, got.Length);
        return Math.Sqrt(got.Zip(wanted, (g, w) => ((double)g - w) * ((double)g - w)).Sum() / wanted.Sum(w => (double)w * w));
    }

    public void Dispose()
    {
        _inputs.Dispose();
        Pretrained.Dispose();
        _owned?.Dispose();
        _folder.Dispose();
    }
}
