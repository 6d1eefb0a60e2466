using System.Numerics.Tensors;
using NativeLora.Adapters;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Cli;

/// <summary>A model with its classifier, and an adapter if there is one, run forward only.</summary>
internal sealed class Classifier : IDisposable
{
    private const int BatchTokens = 2048;
    private readonly PretrainedModel _pretrained;
    private readonly TrainableModel? _adapted;

    private Classifier(PretrainedModel pretrained, TrainableModel? adapted) => (_pretrained, _adapted) = (pretrained, adapted);

    public Model Model => _pretrained.Model;

    public bool IsRegression => Labels.Count == 1;

    /// <summary>Names of the classes.</summary>
    public IReadOnlyList<string> Labels => _pretrained.Model.Config.Id2Label is { Count: > 0 } names
        ? [.. names.OrderBy(n => n.Key).Select(n => n.Value)]
        : [.. Enumerable.Range(0, _pretrained.Model.Config.NumLabels).Select(i => $"LABEL_{i}")];

    /// <summary>Opens the model, and the adapter over it.</summary>
    /// <exception cref="InputException">Files are missing or do not fit, or the model classifies nothing.</exception>
    public static Classifier Open(ModelSettings settings, Device device, string? adapter, IReadOnlyList<string>? labels)
    {
        var folder = adapter is null ? null : AdapterFolder.Open(adapter);
        var names = folder is null ? labels : folder.Labels(settings.Blueprint().Model.Config, labels);
        var pretrained = settings.Open(device, names);
        try
        {
            if ((folder is null ? pretrained.Model.OwnHead : folder.Head(pretrained.Model)) != ModelHead.SequenceClassification)
                throw new InputException($"{adapter ?? settings.Path} is no classifier: predict takes a model or an adapter with a classification head");
            if (folder is null)
            {
                var graph = pretrained.NewGraph(Trainables.None);
                pretrained.Model.Build(graph, new BuildOptions { Head = ModelHead.SequenceClassification, MaxLength = 1 });
                pretrained.Weights.Check(graph);
                if (pretrained.Weights.FreshlyInitialised.Count > 0)
                    throw new InputException($"{settings.Path} has no classifier ({string.Join(", ", pretrained.Weights.FreshlyInitialised.Take(2))} missing): give an adapter that has one with --adapter");
                return new Classifier(pretrained, null);
            }
            return new Classifier(pretrained, folder.Over(pretrained, ModelHead.SequenceClassification));
        }
        catch
        {
            pretrained.Dispose();
            throw;
        }
    }

    /// <summary>Probabilities of the classes, or the score, of each example, in their order.</summary>
    public IEnumerable<(int Index, float[] Outputs)> Predict(IReadOnlyList<EncodedExample> examples, CancellationToken cancellation)
    {
        var longest = examples.Max(e => e.Length);
        var capacity = new BatchSize(Math.Max(longest, (int)Math.Min(BatchTokens, examples.Sum(e => (long)e.Length))), Math.Min(examples.Count, BatchTokens), 0);
        var graph = _pretrained.NewGraph(_adapted?.Trainables ?? Trainables.None);
        var options = new BuildOptions { Head = ModelHead.SequenceClassification, MaxLength = longest };
        var logits = _pretrained.Model.Build(graph, options).Logits!;
        using var session = new Session(_pretrained.Device, MemoryPlan.For(graph, capacity), _adapted?.Weights ?? _pretrained.Weights, _adapted?.Parameters, packWeights: examples.Count > 1);
        var batch = new PackedBatch(capacity.Tokens, capacity.Sequences);
        var packer = new BatchPacker();
        for (int from = 0, to; from < examples.Count; from = to)
        {
            cancellation.ThrowIfCancellationRequested();
            var tokens = examples[from].Length;
            for (to = from + 1; to < examples.Count && to - from < capacity.Sequences && tokens + examples[to].Length <= capacity.Tokens; to++)
                tokens += examples[to].Length;
            packer.Fill(batch, examples, [.. Enumerable.Range(from, to - from)]);
            session.Load(batch);
            session.Run();
            var values = session.Read(logits);
            var classes = logits.Shape.Columns;
            for (var i = from; i < to; i++)
            {
                var row = values.AsSpan((i - from) * classes, classes).ToArray();
                if (classes > 1)
                {
                    TensorPrimitives.Subtract(row, TensorPrimitives.Max(row), row);
                    TensorPrimitives.SoftMax(row, row);
                }
                yield return (i, row);
            }
        }
    }

    public void Dispose()
    {
        _adapted?.Dispose();
        _pretrained.Dispose();
    }
}
