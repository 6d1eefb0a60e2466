using NativeLora.Adapters;
using NativeLora.Hosting;
using NativeLora.Models;
using NativeLora.Tests.Models;

namespace NativeLora.Fuzz;

/// <summary>Readers of adapters.</summary>
internal static class AdapterReaders
{
    private static readonly Lazy<ModelModules> Bert = new(() => PretrainedModel.Modules(ModelRegistry.Create(TinyModel.Config("bert")), ModelHead.SequenceClassification));

    private static readonly string[] Words =
    [
        "\"r\"", "\"lora_alpha\"", "\"target_modules\"", "\"all-linear\"", "\"layers_to_transform\"", "[0,1,2,3]", "\"layers_pattern\"", "\"layer\"", "\"rank_pattern\"", "{\"query\":2}", "\"alpha_pattern\"",
        "\"modules_to_save\"", "[\"classifier\"]", "\"pissa\"", "\"olora\"", "\"gaussian\"", "\"use_dora\"", "\"use_rslora\"", "\"bias\"", "\"all\"", "\"lora_only\"", "\"exclude_modules\"", "\".*query\"", "\"(.*)+(.*)+query$\"",
        "\"^(([a-z])+.)+[A-Z]([a-z])+$\"", "\"lora_bias\"", "\"peft_type\"", "\"task_type\"", "\"SEQ_CLS\"", "\"CAUSAL_LM\"", "\"fan_in_fan_out\"",
    ];

    public static IEnumerable<FuzzReader> All =>
    [
        FuzzReader.Of("adapter-config", "adapter_config.json", () => [.. Configs().Select(c => FuzzCase.Of("adapter_config.json", c.Config.ToJson()))], folder =>
        {
            var config = LoraConfig.Load(Path.Combine(folder, "adapter_config.json"));
            _ = config.UnsupportedReason();
            try
            {
                _ = AdapterLayout.Tensors(config, TargetResolver.Resolve(config, Bert.Value, strict: true)).Count;
            }
            catch (InputException e)
            {
                // As AdapterFile names the file.
                throw new InputException($"{Path.Combine(folder, "adapter_config.json")}: {e.Message}", e);
            }
            _ = LoraConfig.Parse(config.ToJson());
        }) with { Words = Words, Allocates = 64 << 20 },
        FuzzReader.Of("adapter", "adapter_config.json with adapter_model.safetensors", () => [.. Configs().Select(Saved)], folder =>
        {
            _ = AdapterLabels.Classes(new AdapterSource("x", folder));
            _ = LabelsFile.Load(folder);
            _ = AdapterFile.Read(folder).Weights.Tensors.Count;
            _ = AdapterFile.Load(folder, Bert.Value).Warnings.Count;
        }) with { Words = Words, Allocates = 64 << 20 },
        FuzzReader.Of("labels", "labels.json", () => [FuzzCase.Of("labels.json", "[\n  \"no\",\n  \"yes\",\n  \"perhaps\"\n]\n")], folder => _ = LabelsFile.Load(folder)?.Count),
    ];

    private static IEnumerable<(LoraConfig Config, ModelModules Model)> Configs()
    {
        var classes = new LoraConfig { Rank = 1, Alpha = 2, TaskType = "SEQ_CLS", TargetModules = ModuleSelector.Of("query") };
        yield return (classes with { LayersToTransform = [0] }, Bert.Value);
        yield return (classes with { TargetModules = ModuleSelector.Matching(".*layer\\.1\\..*value"), UseDora = true, RankPattern = [new("value", 2)] }, Bert.Value);
        yield return (classes with { TaskType = null, TargetModules = ModuleSelector.Of("key"), ModulesToSave = [], LayersToTransform = [3], LayersPattern = ["layer"] }, Bert.Value);
    }

    private static FuzzCase Saved((LoraConfig Config, ModelModules Model) adapter)
    {
        var folder = Directory.CreateTempSubdirectory("nativelora-fuzz-").FullName;
        try
        {
            var targets = TargetResolver.Resolve(adapter.Config, adapter.Model);
            var sizes = adapter.Model.Modules.ToDictionary(m => m.Name + ".weight", m => m.InFeatures * m.OutFeatures);
            var (weights, _) = AdapterInitializer.Create(adapter.Config, targets, 1, name => sizes.TryGetValue(name, out var size) ? Values(size) : Values(adapter.Model.Modules.First(m => m.Name + ".bias" == name).OutFeatures));
            AdapterFile.Save(folder, adapter.Config, adapter.Model, weights);
            LabelsFile.Save(folder, ["a", "b", "c"]);
            return FuzzCase.Read(folder);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static float[] Values(int count) => [.. Enumerable.Range(0, count).Select(i => 0.01f * i)];
}
