using System.Text.Json;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Tensors;
using NativeLora.Training;

namespace NativeLora.Cli.Verify;

/// <summary>
/// Holds the bf16 mode against the fp32 goldens of a fixture folder, by the yardstick of how far PyTorch's own bf16 is from them
/// (bf16.json): outputs at most 1.5 times as far.
/// </summary>
internal sealed class BrainVerifier(string folder, Device device, VerifyReport report, Func<string, bool>? variants = null)
{
    private const double Share = 1.5;

    // Ours: there is no yardstick for twelve large steps of a tiny model. Real runs are held to 2 % (RunVerifier).
    private const double CurveTolerance = 0.04;
    private readonly string _name = Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)));

    public void Run()
    {
        try
        {
            using var pretrained = Open(Path.Combine(folder, "model"));
            using var json = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "bf16.json")));
            var head = pretrained.Model.OwnHead;
            pretrained.Model.Architecture(head);
            Plain(pretrained, head, json.RootElement);
            var yardstick = json.RootElement.GetProperty("logits").GetDouble();
            var adapters = Path.Combine(folder, "adapters");
            if (!Directory.Exists(adapters))
                return;
            foreach (var variant in Directory.GetDirectories(adapters).Order(StringComparer.Ordinal))
                if (variants?.Invoke(Path.GetFileName(variant)) != false)
                    Adapter(variant, pretrained, head, yardstick);
        }
        catch (Exception e) when (e is InputException or RunException or IOException or JsonException or KeyNotFoundException)
        {
            report.Unsupported(_name, "bf16", e.Message);
        }
    }

    private PretrainedModel Open(string path) => PretrainedModel.Open(path, device, new PretrainedOptions { Precision = ElementType.BF16 });

    private void Plain(PretrainedModel pretrained, ModelHead head, JsonElement yardsticks)
    {
        using var inputs = SafeTensorsFile.Open(Path.Combine(folder, "inputs.safetensors"));
        using var outputs = SafeTensorsFile.Open(Path.Combine(folder, "outputs.safetensors"));
        var batch = new FixtureBatch(inputs, "", pretrained.Model, CaseVerifier.PadOf(pretrained.Model));
        var graph = pretrained.NewGraph(Trainables.None);
        var built = pretrained.Model.Build(graph, new BuildOptions { Head = head, KeepHiddenStates = true, MaxLength = batch.Width });
        pretrained.Weights.Check(graph);
        using var session = new Session(device, MemoryPlan.For(graph, CaseVerifier.Capacity(batch)), pretrained.Weights, null);
        session.Load(batch.Packed);
        session.Run();
        var states = yardsticks.GetProperty("hidden_states");
        for (var i = 0; i < built.HiddenStates.Count; i++)
        {
            var (got, wanted) = batch.Unmasked(session.Read(built.HiddenStates[i]), outputs.ReadFloat32($"hidden_states.{i}"));
            report.Line(_name, "bf16", $"hidden_states.{i}", Distance.RelativeL2(got, wanted), Share * states[i].GetDouble());
        }
        var logits = session.Read(built.Logits!);
        var golden = outputs.ReadFloat32("logits");
        if (head == ModelHead.LanguageModel)
            (logits, golden) = batch.Unmasked(logits, golden);
        report.Line(_name, "bf16", "logits", Distance.RelativeL2(logits, golden), Share * yardsticks.GetProperty("logits").GetDouble());
    }

    private void Adapter(string adapter, PretrainedModel pretrained, ModelHead head, double yardstick)
    {
        var variant = $"bf16:{Path.GetFileName(adapter)}";
        var loaded = AdapterFile.Load(Path.Combine(adapter, "init"), pretrained.Modules(head));
        using var temporary = loaded.Config.ChangesBase ? new VerifyFolder() : null;
        if (temporary is not null)
        {
            File.Copy(Path.Combine(folder, "model", "config.json"), temporary.At("config.json"));
            File.Copy(Path.Combine(adapter, "base", "model.safetensors"), temporary.At("model.safetensors"));
            loaded = loaded with { Config = loaded.Config with { InitLoraWeights = "true" } };
        }
        using var residual = temporary is null ? null : Open(temporary.Path);
        var over = residual ?? pretrained;
        using var golden = SafeTensorsFile.Open(Path.Combine(adapter, "golden.safetensors"));
        using var inputs = SafeTensorsFile.Open(Path.Combine(folder, "inputs.safetensors"));
        var pad = CaseVerifier.PadOf(pretrained.Model);
        var batch = new FixtureBatch(inputs, "", pretrained.Model, pad);
        using var model = TrainableModel.WithAdapters(over, head, loaded.Config, loaded.Weights);
        // There is no yardstick with adapters: a bound of our own.
        report.Line(_name, variant, "logits", AdapterVerifier.Logits(model, batch, golden.ReadFloat32("logits")), 2 * Share * yardstick);
        var losses = new Worst();
        AdapterVerifier.Train(model, folder, adapter, batch, pad, (number, loss, step) =>
            losses.Add(Distance.Relative(loss, step.GetProperty("loss").GetDouble()), $"step{number}"));
        report.Line(_name, variant, $"losses[{losses.Count}]:{losses.Where}", losses.Error, CurveTolerance);
    }
}
