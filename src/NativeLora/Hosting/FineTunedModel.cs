using NativeLora.Adapters;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Hosting;

/// <summary>
/// What a <see cref="FineTuner"/> trained: the adapter, in memory, and how it came about. It outlives the tuner, holds no files open, and
/// may be used by any number of threads.
/// </summary>
public sealed class FineTunedModel
{
    private readonly string _base;
    private readonly TrainedAdapter _adapter;

    internal FineTunedModel(string folder, TrainedAdapter adapter) => (_base, _adapter) = (folder, adapter);

    /// <summary>Layers that have adapters, ascending; all of them where the settings name modules outside of layers.</summary>
    public required IReadOnlyList<int> Layers { get; init; }

    /// <summary>How the layers were chosen; null where they were given, or chosen before the training was interrupted.</summary>
    public required SelectionResult? Selection { get; init; }

    /// <summary>Steps, loss, tokens and time; its folder is empty where nothing is kept on disk.</summary>
    public required TrainingSummary Summary { get; init; }

    /// <summary>The evaluation of these weights; null without rows for it.</summary>
    public required EvaluationResult? Evaluation { get; init; }

    /// <summary>What was planned for a step, by category, in bytes.</summary>
    public required MemoryReport Memory { get; init; }

    /// <summary>Number of trained parameters.</summary>
    public required long TrainableParameters { get; init; }

    /// <summary>What may not be meant so: one line each.</summary>
    public required IReadOnlyList<string> Warnings { get; init; }

    /// <summary>Names of the classes in the order of their ids; one name for a score; null for language modelling.</summary>
    public IReadOnlyList<string>? Labels => _adapter.Labels;

    /// <summary>PEFT's settings of the adapter.</summary>
    public LoraConfig Config => _adapter.Config;

    /// <summary>PEFT's tensors of the adapter.</summary>
    public AdapterWeights Weights => _adapter.Weights;

    /// <summary>The adapter for <see cref="InferenceOptions.Adapters"/>, taken from memory; others may stand beside it.</summary>
    /// <param name="name">What calls name it by.</param>
    public AdapterSource ToAdapter(string name = "tuned") => new(name, Summary.OutputFolder) { Trained = _adapter };

    /// <summary>Writes the adapter as PEFT has it: <c>adapter_config.json</c>, <c>adapter_model.safetensors</c> and, for classes, <c>labels.json</c>.</summary>
    /// <param name="folder">The folder, made if it is not there.</param>
    /// <exception cref="RunException">A file cannot be written.</exception>
    public void Save(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        _adapter.Save(folder);
    }

    /// <summary>Opens the base with the adapter as a classifier, or a regression.</summary>
    /// <param name="options">Threads, limits, further adapters; this one comes first.</param>
    /// <exception cref="InputException">It was not trained to classify, or an option makes no sense.</exception>
    /// <exception cref="RunException">There is not enough memory.</exception>
    public Classifier OpenClassifier(InferenceOptions? options = null) => Labels is null
        ? throw new InputException("the adapter was trained on prompts and completions and classifies nothing; open a generator")
        : Classifier.Open(_base, With(options));

    /// <summary>Opens the base with the adapter as a generator.</summary>
    /// <param name="options">Threads, further adapters; this one comes first.</param>
    /// <exception cref="InputException">It was not trained on prompts and completions, or an option makes no sense.</exception>
    /// <exception cref="RunException">There is not enough memory.</exception>
    public Generator OpenGenerator(InferenceOptions? options = null) => Labels is not null
        ? throw new InputException("the adapter was trained to classify and writes nothing; open a classifier")
        : Generator.Open(_base, With(options));

    private InferenceOptions With(InferenceOptions? options)
    {
        options ??= new InferenceOptions();
        return options with { Adapters = [ToAdapter(), .. options.Adapters] };
    }
}
