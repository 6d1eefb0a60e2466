using System.Text.Json;
using System.Text.Json.Nodes;
using NativeLora.Adapters;

namespace NativeLora.Tests.Adapters;

public class TargetResolverTests
{
    private static readonly string[] Cases = ["bert-cls", "roberta-cls", "llama-gqa", "llama-mha", "gpt2"];

    public static TheoryData<int, string> Rows()
    {
        var data = new TheoryData<int, string>();
        if (Shared.Root is null)
        {
            data.Add(-1, "");
            return data;
        }
        foreach (var (row, index) in ReadRows().Select((r, i) => (r, i)))
            if (Cases.Contains(row.GetProperty("case").GetString()))
                data.Add(index, $"{row.GetProperty("case")} {row.GetProperty("options").GetRawText()}");
        return data;
    }

    private static JsonElement[] ReadRows() =>
        JsonSerializer.Deserialize<JsonElement[]>(File.ReadAllText(Shared.Path("fixtures", "targets.json")))!;

    [SharedTheory]
    [MemberData(nameof(Rows))]
    public void Resolves_as_PEFT(int index, string shown)
    {
        _ = shown;
        var row = ReadRows()[index];
        var model = TestModels.Case(row.GetProperty("case").GetString()!);
        var json = JsonNode.Parse(row.GetProperty("options").GetRawText())!.AsObject();
        json["peft_type"] = "LORA";
        json["task_type"] = row.GetProperty("task_type").GetString();
        json.TryAdd("r", 4);
        json["lora_alpha"] = 8;

        if (row.TryGetProperty("error", out _))
        {
            var error = Assert.Throws<InputException>(() => TargetResolver.Resolve(LoraConfig.Parse(json.ToJsonString()), model));
            Assert.DoesNotContain('\n', error.Message);
            return;
        }
        var resolved = TargetResolver.Resolve(LoraConfig.Parse(json.ToJsonString()), model);
        var expected = row.GetProperty("adapted").EnumerateObject().ToDictionary(p => p.Name, p => (p.Value[0].GetInt32(), p.Value[1].GetDouble()));
        Assert.Equal(expected.OrderBy(e => e.Key), resolved.Adapted.ToDictionary(a => a.Name, a => (a.Rank, a.Alpha)).OrderBy(a => a.Key));
        Assert.Equal(row.GetProperty("saved_in_full").EnumerateArray().Select(e => e.GetString()), resolved.SavedModules);
        Assert.Equal(row.GetProperty("trainable").GetInt64(), resolved.TrainableCount);

        // What is written for the adapter resolves to the same.
        var again = TargetResolver.Resolve(LoraConfig.Parse(TargetResolver.Complete(LoraConfig.Parse(json.ToJsonString()), model).ToJson()), model);
        Assert.Equal(resolved.Adapted, again.Adapted);
        Assert.Equal(resolved.SavedModules, again.SavedModules);
    }

    [SharedFact]
    public void All_cases_have_rows() => Assert.True(Rows().Count >= 53, $"{Rows().Count} rows");

    [SharedTheory]
    [InlineData("distilbert-cls", "all-linear", 30, "classifier,pre_classifier")]
    [InlineData("distilbert-cls", null, 10, "classifier,pre_classifier")]
    [InlineData("modernbert-cls", "all-linear", 21, "classifier")]
    [InlineData("modernbert-cls", null, 5, "classifier")]
    public void Adapts_encoders_and_saves_their_classifiers(string name, string? targets, int adapted, string saved)
    {
        var resolved = TargetResolver.Resolve(new LoraConfig { TargetModules = targets is null ? null : ModuleSelector.AllLinear, TaskType = "SEQ_CLS" }, TestModels.Case(name));
        Assert.Equal(adapted, resolved.Adapted.Count);
        Assert.Equal(saved, string.Join(',', resolved.SavedModules));
        Assert.Empty(resolved.Warnings);
    }

    [SharedFact]
    public void Fan_in_fan_out_follows_the_model()
    {
        var given = new LoraConfig { TargetModules = ModuleSelector.AllLinear, FanInFanOut = true };
        Assert.False(TargetResolver.Complete(given, TestModels.Case("bert-cls")).FanInFanOut);
        Assert.True(TargetResolver.Complete(given with { FanInFanOut = false }, TestModels.Case("gpt2")).FanInFanOut);
    }

    [SharedTheory]
    [InlineData("query,nothing", "target_modules \"nothing\" matches no module")]
    [InlineData("query,classifier", null)]
    public void Warns_of_a_target_without_match(string targets, string? warning)
    {
        var resolved = TargetResolver.Resolve(new LoraConfig { TargetModules = ModuleSelector.Of(targets.Split(',')), TaskType = "SEQ_CLS" }, TestModels.Case("bert-cls"));
        Assert.Equal(warning is null ? [] : [warning], resolved.Warnings);
    }

    [SharedFact]
    public void Warns_of_layers_patterns_and_exclusions_without_match()
    {
        var config = new LoraConfig
        {
            TargetModules = ModuleSelector.Of("layer.1.attention.self.query"),
            LayersToTransform = [1, 2, 99],
            RankPattern = [new("key", 2)],
            AlphaPattern = [new("query", 2)],
            ExcludeModules = ModuleSelector.Of("absent"),
            ModulesToSave = ["nowhere"],
        };
        var warnings = TargetResolver.Resolve(config, TestModels.Case("bert-cls")).Warnings;
        Assert.Collection(
            warnings,
            w => Assert.Contains("layer 99", w),
            w => Assert.Contains("\"nowhere\"", w),
            w => Assert.Contains("no module of layer 2", w),
            w => Assert.Contains("\"absent\"", w),
            w => Assert.Contains("rank_pattern \"key\"", w));
        var error = Assert.Throws<InputException>(() => TargetResolver.Resolve(config, TestModels.Case("bert-cls"), strict: true));
        Assert.Contains("layer 99", error.Message);
    }

    [SharedTheory]
    [InlineData("bert-cls", true)]
    [InlineData("bert-cls", false)]
    [InlineData("roberta-cls", true)]
    [InlineData("llama-gqa", true)]
    [InlineData("llama-gqa", false)]
    [InlineData("gpt2", true)]
    [InlineData("distilbert-cls", true)]
    [InlineData("modernbert-cls", true)]
    public void Restricts_to_layers(string name, bool allLinear)
    {
        var model = TestModels.Case(name);
        var config = new LoraConfig { TargetModules = allLinear ? ModuleSelector.AllLinear : null };
        var all = TargetResolver.Resolve(config, model);
        var restricted = TargetResolver.ForLayers(config, model, [3, 1]);
        Assert.Equal([1, 3], restricted.LayersToTransform!);
        Assert.Equal(
            all.Adapted.Where(a => a.Name.Contains(".1.") || a.Name.Contains(".3.")).Select(a => a.Name),
            TargetResolver.Resolve(restricted, model, strict: true).Adapted.Select(a => a.Name));
        Assert.Throws<InputException>(() => TargetResolver.ForLayers(config, model, [5]));
        Assert.Throws<InputException>(() => TargetResolver.ForLayers(config, model, [-1]));
        Assert.Throws<InputException>(() => TargetResolver.ForLayers(config, model, []));
    }

    [SharedFact]
    public void Restricts_a_regular_expression_to_layers_by_full_names()
    {
        var model = TestModels.Case("llama-gqa");
        var restricted = TargetResolver.ForLayers(new LoraConfig { TargetModules = ModuleSelector.Matching(".*(q|v)_proj") }, model, [4]);
        Assert.Null(restricted.LayersToTransform);
        Assert.Equal(["model.layers.4.self_attn.q_proj", "model.layers.4.self_attn.v_proj"], restricted.TargetModules!.Names!);
    }

    [SharedFact]
    public void A_pattern_that_backtracks_without_end_is_refused()
    {
        var model = new ModelModules("llama", "LlamaForCausalLM", [new(new string('a', 40) + "!", ModuleKind.Linear, 1, 1, false, false)], 1);
        var error = Assert.Throws<InputException>(() => TargetResolver.Resolve(new LoraConfig { TargetModules = ModuleSelector.Matching("(a+)+b") }, model));
        Assert.Contains("too long", error.Message);
        error = Assert.Throws<InputException>(() => TargetResolver.Resolve(new LoraConfig { TargetModules = ModuleSelector.Matching("(") }, model));
        Assert.Contains("regular expression", error.Message);
    }

    [Theory]
    [InlineData("bert.encoder.layer.3.output.dense", 3)]
    [InlineData("model.layers.12.mlp.up_proj", 12)]
    [InlineData("bert.pooler.dense", null)]
    [InlineData("lm_head", null)]
    public void Knows_the_layer_of_a_module(string module, int? layer) => Assert.Equal(layer, TargetResolver.LayerOf(module));
}
