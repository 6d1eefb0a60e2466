using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using NativeLora.Data;

namespace NativeLora.Training;

/// <summary>What the result of a training depends on, by name: stored with a checkpoint, compared when it is resumed.</summary>
internal static class TrainingSettings
{
    private const int Sample = 4096;

    public static SortedDictionary<string, string> Of(
        TrainableModel model, IReadOnlyList<EncodedExample> train, IReadOnlyList<EncodedExample>? dev, TrainerOptions options, LearningRate schedule)
    {
        var adam = options.Adam;
        var settings = new SortedDictionary<string, string>(StringComparer.Ordinal)
        {
            ["steps"] = Text(schedule.TotalSteps),
            ["batch size"] = options.BatchTokens is { } tokens ? $"{Text(tokens)} tokens" : Text(options.BatchSize ?? 0),
            ["accumulation"] = Text(options.AccumulationSteps),
            ["learning rate"] = Text(schedule.Peak),
            ["schedule"] = schedule.Kind.ToString(),
            ["warm-up steps"] = Text(schedule.WarmupSteps),
            ["AdamW"] = $"betas {Text(adam.Beta1)} and {Text(adam.Beta2)}, epsilon {Text(adam.Epsilon)}, weight decay {Text(adam.WeightDecay)}",
            ["gradient norm"] = Text(options.MaxGradientNorm),
            ["seed"] = Text(options.Seed),
            ["order"] = options.FileOrder ? "of the file" : $"shuffled, window {Text(options.Window)}",
            ["base dropout"] = options.BaseDropout ? "on" : "off",
            ["hidden token"] = options.HiddenKeyId is { } hidden ? Text(hidden) : "none",
            ["head"] = model.Head.ToString(),
            ["trained"] = model.Config is null ? "everything" : "adapters",
            ["base model"] = Base(model),
            ["training data"] = Data(train),
            ["best kept by"] = options.KeepBest is { } metric ? $"{metric}, {(options.BestIsHigher ? "higher" : "lower")} is better" : "nothing",
        };
        if (model.Config is { } config)
        {
            (settings["rank"], settings["alpha"], settings["LoRA dropout"]) = (Text(config.Rank), Text(config.Alpha), Text(config.Dropout));
            settings["adapted layers"] = config.LayersToTransform is { Count: > 0 } layers ? string.Join(", ", layers) : "all";
            settings["adapted modules"] = config.TargetModules?.ToString() ?? "the family's";
            // Where the base lies does not matter, only what it is.
            settings["adapter config"] = Hash((config with { BaseModel = null }).ToJson());
        }
        if (options.KeepBest is not null)
        {
            settings["evaluation"] = $"{(options.EvaluateEvery > 0 ? $"every {Text(options.EvaluateEvery)} steps" : "")}{(options.EvaluateEachEpoch ? " each epoch" : "")} at the end";
            settings["evaluation data"] = dev is null ? "none" : Data(dev);
        }
        return settings;
    }

    /// <exception cref="InputException">They differ; it names the first difference.</exception>
    public static void Compare(string checkpoint, IReadOnlyDictionary<string, string> stored, IReadOnlyDictionary<string, string> now)
    {
        foreach (var name in stored.Keys.Union(now.Keys))
        {
            var (before, after) = (stored.GetValueOrDefault(name, "not given"), now.GetValueOrDefault(name, "not given"));
            if (before != after)
                throw new InputException($"{checkpoint}: the {name} of this training was {before}, now it is {after}; resume with what it was, or train into another folder");
        }
    }

    // The whole of a large model takes too long to read for this; names, shapes and the first bytes of each tensor tell models apart.
    private static string Base(TrainableModel model)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var pretrained = model.Pretrained;
        hash.AppendData(Encoding.UTF8.GetBytes(pretrained.Model.Config.Json));
        foreach (var tensor in pretrained.Checkpoint.Tensors.Values.OrderBy(t => t.Name, StringComparer.Ordinal))
        {
            hash.AppendData(Encoding.UTF8.GetBytes($"{tensor.Name} {tensor.Type} {tensor.ShapeText}\n"));
            if (tensor.Offset >= 0 && tensor.Bytes <= int.MaxValue)
                hash.AppendData(pretrained.Checkpoint.Get(tensor.Name).Span[..(int)Math.Min(Sample, tensor.Bytes)]);
        }
        if (pretrained.Weights.FreshlyInitialised.Count > 0)
            hash.AppendData(BitConverter.GetBytes(pretrained.Weights.Seed));
        return Short(hash);
    }

    private static string Data(IReadOnlyList<EncodedExample> examples)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var e in examples)
        {
            hash.AppendData(MemoryMarshal.AsBytes<int>([e.Length, e.ClassLabel, BitConverter.SingleToInt32Bits(e.Target), e.PoolIndex, e.Labels is null ? 0 : 1]));
            hash.AppendData(MemoryMarshal.AsBytes(e.Ids.AsSpan()));
            hash.AppendData(MemoryMarshal.AsBytes(e.TypeIds.AsSpan()));
            hash.AppendData(MemoryMarshal.AsBytes(e.Labels.AsSpan()));
        }
        return $"{Text(examples.Count)} examples, {Short(hash)}";
    }

    private static string Hash(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)).AsSpan(0, 8));

    private static string Short(IncrementalHash hash) => Convert.ToHexStringLower(hash.GetHashAndReset().AsSpan(0, 8));

    private static string Text<T>(T value) where T : IFormattable => value.ToString(null, CultureInfo.InvariantCulture);
}
