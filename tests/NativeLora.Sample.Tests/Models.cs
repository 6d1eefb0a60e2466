using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Devices.Cpu;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Tests.Samples;

/// <summary>Adapters with heads, made at random, in the folders that the sample reads.</summary>
internal static class Models
{
    private static readonly string[] s_labels = ["no", "perhaps", "yes"];

    public static string Minilm => Shared.Path("models", "minilm-l6");

    public static string Decoder => Shared.Path("models", "smollm2-135m");

    public static void WriteAdapters(string model, string folder, int count, bool classifier = true)
    {
        using var device = new CpuDevice(1);
        var head = classifier ? ModelHead.SequenceClassification : ModelHead.LanguageModel;
        using var pretrained = PretrainedModel.Open(model, device, new PretrainedOptions { Labels = classifier ? s_labels : null });
        for (var i = 0; i < count; i++)
        {
            var config = new LoraConfig
            {
                Rank = 2 + (i % 3),
                Alpha = 8,
                TaskType = classifier ? "SEQ_CLS" : "CAUSAL_LM",
                InitLoraWeights = "false",
                TargetModules = classifier ? ModuleSelector.Of("query", "value") : ModuleSelector.Of("q_proj"),
                ModulesToSave = classifier ? ["classifier"] : null,
            };
            using var made = TrainableModel.WithAdapters(pretrained, head, config, null, seed: (ulong)i + 1, training: false);
            AdapterFile.Save(Path.Combine(folder, $"tenant-{i}"), made.Config!, pretrained.Modules(head), made.Export());
            if (classifier)
                LabelsFile.Save(Path.Combine(folder, $"tenant-{i}"), s_labels);
        }
    }
}
