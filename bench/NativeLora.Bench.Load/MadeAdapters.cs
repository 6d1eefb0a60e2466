using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Devices.Cpu;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Bench.Load;

/// <summary>Adapters with a head, as training would leave them, made at random; and a model with one of them merged.</summary>
internal static class MadeAdapters
{
    private static readonly string[] s_labels = ["negative", "positive"];

    /// <summary>Writes adapters on query and value of every layer, each in a folder named after its number.</summary>
    public static void Write(string model, string folder, int count, int rank)
    {
        using var device = new CpuDevice(1);
        using var pretrained = PretrainedModel.Open(model, device, new PretrainedOptions { Labels = s_labels });
        for (var i = 0; i < count; i++)
            Write(pretrained, Path.Combine(folder, Name(i)), rank, (ulong)i + 1, "false");
    }

    public static string Name(int number) => $"adapter-{number:000}";

    /// <summary>
    /// Writes a model with an adapter merged whose B is still 0, as training begins: the encoder is the one of the ONNX file, the head is the
    /// adapter's. What a merged model costs does not depend on its values.
    /// </summary>
    public static void WriteMerged(string model, string folder)
    {
        var fresh = folder + "-adapter";
        using (var device = new CpuDevice(1))
        {
            using var pretrained = PretrainedModel.Open(model, device, new PretrainedOptions { Labels = s_labels });
            Write(pretrained, fresh, 8, 1, "true");
        }
        using var checkpoint = Checkpoint.Open(model, new CheckpointOptions());
        var modules = PretrainedModel.Modules(ModelRegistry.Create(checkpoint.Config, s_labels), ModelHead.SequenceClassification);
        var loaded = AdapterFile.Load(fresh, modules);
        AdapterMerger.Merge(checkpoint, modules, loaded.Config, loaded.Weights, folder, s_labels, CancellationToken.None);
        foreach (var file in (string[])["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"])
            if (File.Exists(Path.Combine(model, file)) && !File.Exists(Path.Combine(folder, file)))
                File.Copy(Path.Combine(model, file), Path.Combine(folder, file));
    }

    private static void Write(PretrainedModel pretrained, string folder, int rank, ulong seed, string init)
    {
        var config = new LoraConfig { Rank = rank, Alpha = 2 * rank, TaskType = "SEQ_CLS", InitLoraWeights = init, TargetModules = ModuleSelector.Of("query", "value"), ModulesToSave = ["classifier"] };
        using var made = TrainableModel.WithAdapters(pretrained, ModelHead.SequenceClassification, config, null, seed: seed, training: false);
        AdapterFile.Save(folder, made.Config!, pretrained.Modules(ModelHead.SequenceClassification), made.Export());
        LabelsFile.Save(folder, s_labels);
    }
}
