using System.Diagnostics;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Cli.Demo;

/// <summary>A point of a learning curve.</summary>
internal readonly record struct CurvePoint(int Step, double Accuracy);

/// <summary>Trains and tests a model on the generated language.</summary>
internal sealed class DemoLearner : IDisposable
{
    private readonly TrainableModel _model;
    private readonly DemoLanguage _language;
    private readonly int _batchSize;
    private readonly BatchPacker _packer = new();
    private readonly PackedBatch _batch;
    private readonly TrainingSession _training;

    public DemoLearner(TrainableModel model, DemoLanguage language, int batchSize)
    {
        (_model, _language, _batchSize) = (model, language, batchSize);
        _batch = new PackedBatch(batchSize * language.Length, batchSize);
        _training = new TrainingSession(model, BatchSize.Of(batchSize, language.Length), language.Length, new AdamWOptions(), baseDropout: false);
    }

    public MemoryPlan Plan => _training.Session.Plan;

    /// <summary>Seconds of each step.</summary>
    public List<double> Seconds { get; } = [];

    /// <summary>One update on each batch of the examples in their order.</summary>
    /// <param name="examples">As many as steps times the batch size.</param>
    /// <param name="peak">Learning rate after the warm-up.</param>
    /// <param name="afterStep">Told the number of steps made and the loss.</param>
    /// <param name="cancellation">Stops between steps.</param>
    public void Train(IReadOnlyList<EncodedExample> examples, double peak, Action<int, float> afterStep, CancellationToken cancellation)
    {
        var steps = examples.Count / _batchSize;
        var rate = new LearningRate(LearningRateKind.Cosine, peak, steps, LearningRate.StepsOf(steps, 0.05));
        var indices = new int[_batchSize];
        for (var step = 0; step < steps; step++)
        {
            cancellation.ThrowIfCancellationRequested();
            for (var i = 0; i < _batchSize; i++)
                indices[i] = (step * _batchSize) + i;
            var start = Stopwatch.GetTimestamp();
            _packer.Fill(_batch, examples, indices);
            var loss = _training.Accumulate(_batch, 1f / _training.LabelCount(_batch), first: true);
            // The warm-up begins at 0: its first step would be lost.
            _training.Apply(rate.At(step + 1), 1);
            Seconds.Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
            if (!float.IsFinite(loss))
                throw new RunException($"the loss became {loss} at step {step + 1}; try another --seed");
            afterStep(step + 1, loss);
        }
    }

    /// <summary>Makes a tester of the model, whatever it has learnt by then.</summary>
    public DemoTester NewTester(IReadOnlyList<EncodedExample> examples) => new(_model, _language, examples);

    public void Dispose() => _training.Dispose();
}

/// <summary>Share of the answers' symbols that the model thinks the likeliest.</summary>
internal sealed class DemoTester : IDisposable
{
    private const int BatchSize = 64;
    private readonly DemoLanguage _language;
    private readonly IReadOnlyList<EncodedExample> _examples;
    private readonly PackedBatch _batch;
    private readonly BatchPacker _packer = new();
    private readonly Session _session;
    private readonly Tensor _logits;
    private readonly float[] _values;

    public DemoTester(TrainableModel model, DemoLanguage language, IReadOnlyList<EncodedExample> examples)
    {
        (_language, _examples) = (language, examples);
        _batch = new PackedBatch(BatchSize * language.Length, BatchSize);
        var (graph, outputs) = model.Build(new BuildOptions { Head = model.Head, MaxLength = language.Length });
        _logits = outputs.Logits!;
        _session = model.NewSession(graph, Graphs.BatchSize.Of(BatchSize, language.Length));
        _values = new float[BatchSize * language.Length * DemoLanguage.Vocabulary];
    }

    public double Accuracy()
    {
        long right = 0;
        for (var first = 0; first < _examples.Count; first += BatchSize)
        {
            var count = Math.Min(BatchSize, _examples.Count - first);
            _packer.Fill(_batch, _examples, [.. Enumerable.Range(first, count)]);
            _session.Load(_batch);
            _session.Run();
            _session.Read(_logits, _values);
            for (var row = 0; row < _batch.TokenCount; row++)
                if (_batch.Labels[row] != InstructionPrompt.IgnoredLabel && Likeliest(row) == _batch.Labels[row])
                    right++;
        }
        return (double)right / (_examples.Count * _language.Word);
    }

    private int Likeliest(int row) => System.Numerics.Tensors.TensorPrimitives.IndexOfMax<float>(
        _values.AsSpan(row * DemoLanguage.Vocabulary, DemoLanguage.Vocabulary));

    public void Dispose() => _session.Dispose();
}
