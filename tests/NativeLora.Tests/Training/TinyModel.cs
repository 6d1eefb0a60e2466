using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

/// <summary>A small model with random weights in a folder of its own, its examples, and a device.</summary>
internal sealed class TinyModel : IDisposable
{
    private const string Bert = """
        {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 16, "num_hidden_layers": 2,
         "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40, "max_position_embeddings": 24, "type_vocab_size": 2,
         "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02, "hidden_dropout_prob": 0.1,
         "attention_probs_dropout_prob": 0.1, "pad_token_id": 0, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
        """;

    private const string Llama = """
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 24, "vocab_size": 40, "max_position_embeddings": 24, "hidden_act": "silu",
         "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "initializer_range": 0.02}
        """;

    private readonly Device? _owned;
    private readonly PretrainedModel _pretrained;

    private TinyModel(string folder, bool isCausal, bool inFull, int threads, double dropout, ulong seed, Func<LoraConfig, LoraConfig>? change, OptimizerKind optimizer, Device? device)
    {
        _owned = device is null ? new CpuDevice(threads) : null;
        _pretrained = PretrainedModel.Open(folder, device ?? _owned!);
        Head = isCausal ? ModelHead.LanguageModel : ModelHead.SequenceClassification;
        var config = new LoraConfig
        {
            Rank = 4,
            Alpha = 8,
            Dropout = dropout,
            TaskType = isCausal ? "CAUSAL_LM" : "SEQ_CLS",
            TargetModules = isCausal ? ModuleSelector.Of("q_proj", "down_proj") : ModuleSelector.Of("query", "value"),
        };
        config = change?.Invoke(config) ?? config;
        Model = inFull ? TrainableModel.InFull(_pretrained, Head, optimizer: optimizer) : TrainableModel.WithAdapters(_pretrained, Head, config, seed: seed, optimizer: optimizer);
    }

    public TrainableModel Model { get; }

    public ModelHead Head { get; }

    /// <summary>Writes the model if the folder has none, and opens it.</summary>
    public static TinyModel Open(string folder, bool isCausal, bool inFull = false, int threads = 2, double dropout = 0.1, ulong seed = 3, Func<LoraConfig, LoraConfig>? change = null,
        OptimizerKind optimizer = OptimizerKind.AdamW, Device? device = null)
    {
        if (!File.Exists(Path.Combine(folder, "config.json")))
            Write(folder, isCausal ? Llama : Bert, isCausal ? ModelHead.LanguageModel : ModelHead.SequenceClassification);
        return new TinyModel(folder, isCausal, inFull, threads, dropout, seed, change, optimizer, device);
    }

    /// <summary>Examples with something to be learnt: the class is whether token 7 occurs; texts count upwards.</summary>
    public static EncodedExample[] Examples(bool isCausal, int count, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ =>
        {
            int[] ids = new int[random.Next(3, 17)];
            var start = random.Next(1, 12);
            for (var t = 0; t < ids.Length; t++)
                ids[t] = isCausal ? start + t : random.Next(8, 40);
            if (isCausal)
            {
                var prompt = random.Next(1, ids.Length - 1);
                return EncodedExample.Causal(ids, [.. ids.Select((id, t) => t < prompt ? -100 : id)], ids.Length - 1);
            }
            var label = random.Next(2);
            if (label == 1)
                ids[random.Next(ids.Length)] = 7;
            return EncodedExample.Text(new TokenizedText(ids, new int[ids.Length]), label);
        })];
    }

    public static void Write(string folder, string config, ModelHead head, double deviation = 0.2)
    {
        Directory.CreateDirectory(folder);
        var graph = new Graph(Trainables.None);
        ModelRegistry.Create(HfConfig.Parse(config)).Build(graph, new BuildOptions { Head = head, MaxLength = 1 });
        var random = new SplitMix64(1);
        var tensors = new List<TensorToWrite>();
        foreach (var weight in graph.Weights)
        {
            var values = new float[weight.Shape.FixedRows * weight.Shape.Columns];
            var isNorm = weight.Name.Contains("norm", StringComparison.OrdinalIgnoreCase) && weight.Name.EndsWith("weight", StringComparison.Ordinal);
            for (var i = 0; i < values.Length; i++)
                values[i] = (isNorm ? 1 : 0) + (float)(deviation * random.NextGaussian());
            tensors.Add(TensorToWrite.From(
                weight.Name, weight.Shape.FixedRows == 1 ? [weight.Shape.Columns] : [weight.Shape.FixedRows, weight.Shape.Columns], values));
        }
        SafeTensorsWriter.Write(Path.Combine(folder, "model.safetensors"), tensors);
        File.WriteAllText(Path.Combine(folder, "config.json"), config);
    }

    public void Dispose()
    {
        Model.Dispose();
        _pretrained.Dispose();
        _owned?.Dispose();
    }
}

/// <summary>Collects what a training says, and may act after a step.</summary>
internal sealed class Watcher(Action<TrainingProgress>? afterStep = null) : ITrainingObserver
{
    public List<TrainingProgress> Steps { get; } = new(1024);

    public List<TrainingEvaluation> Evaluations { get; } = [];

    public List<string> Warnings { get; } = [];

    public int? ResumedAt { get; private set; }

    public void OnStep(in TrainingProgress progress)
    {
        Steps.Add(progress);
        afterStep?.Invoke(progress);
    }

    public void OnEvaluation(TrainingEvaluation evaluation) => Evaluations.Add(evaluation);

    public void OnWarning(string message) => Warnings.Add(message);

    public void OnResumed(int step, string checkpoint) => ResumedAt = step;
}
