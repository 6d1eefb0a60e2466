using System.Text.Json;
using NativeLora.Checkpoints;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli.Verify;

/// <summary>Compares one fixture folder: the plain model, its gradients, selection, and the adapters, or those of them that are asked for.</summary>
internal sealed class CaseVerifier(string folder, Device device, VerifyReport report, Func<string, bool>? adapters = null)
{
    private const double OutputTolerance = 1e-5;
    private const double GradientTolerance = 5e-5;
    private readonly string _name = Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)));

    public void Run()
    {
        PretrainedModel pretrained;
        try
        {
            pretrained = PretrainedModel.Open(At("model"), device);
        }
        catch (InputException e)
        {
            report.Unsupported(_name, "model", e.Message);
            return;
        }
        using (pretrained)
        {
            var head = pretrained.Model.OwnHead;
            try
            {
                pretrained.Model.Architecture(head);
                Guard("plain", () => Plain(pretrained, head, "plain"));
                if (Directory.Exists(At("model-hub")))
                    Guard("hub", Hub);
                if (File.Exists(At("grads.safetensors")))
                    Guard("plain", () => Gradients(pretrained, head));
                if (Directory.Exists(At("selection")))
                    Guard("selection", () => Selection(pretrained));
            }
            catch (InputException e)
            {
                report.Unsupported(_name, "model", e.Message);
                return;
            }
            if (!Directory.Exists(At("adapters")))
                return;
            foreach (var variant in Directory.GetDirectories(At("adapters")).Order(StringComparer.Ordinal))
            {
                var name = Path.GetFileName(variant);
                if (adapters?.Invoke(name) == false)
                    continue;
                Guard(name, () => new AdapterVerifier(_name, name, folder, pretrained, head, report).Run());
            }
        }
    }

    private void Guard(string variant, Action work)
    {
        try
        {
            work();
        }
        catch (Exception e) when (e is InputException or RunException or IOException or JsonException or KeyNotFoundException)
        {
            report.Error(_name, variant, e.Message);
        }
    }

    private string At(params string[] parts) => Path.Combine([folder, .. parts]);

    internal static int PadOf(Model model) =>
        model.TextConfig.GetInt(model.IsEncoder ? "pad_token_id" : "eos_token_id", model.IsEncoder ? 0 : 2);

    /// <summary>The same weights under the names of the hub's files.</summary>
    private void Hub()
    {
        using var pretrained = PretrainedModel.Open(At("model-hub"), device);
        Plain(pretrained, pretrained.Model.OwnHead, "hub");
    }

    private void Plain(PretrainedModel pretrained, ModelHead head, string variant)
    {
        using var inputs = SafeTensorsFile.Open(At("inputs.safetensors"));
        using var outputs = SafeTensorsFile.Open(At("outputs.safetensors"));
        var batch = new FixtureBatch(inputs, "", pretrained.Model, PadOf(pretrained.Model));
        var graph = pretrained.NewGraph(Trainables.None);
        var built = pretrained.Model.Build(graph, new BuildOptions { Head = head, KeepHiddenStates = true, MaxLength = batch.Width });
        pretrained.Weights.Check(graph);
        using var session = new Session(device, MemoryPlan.For(graph, Capacity(batch)), pretrained.Weights, null);
        session.Load(batch.Packed);
        session.Run();
        for (var i = 0; i < built.HiddenStates.Count; i++)
        {
            var (got, wanted) = batch.Unmasked(session.Read(built.HiddenStates[i]), outputs.ReadFloat32($"hidden_states.{i}"));
            report.Line(_name, variant, $"hidden_states.{i}", Distance.RelativeL2(got, wanted), OutputTolerance);
        }
        var logits = session.Read(built.Logits!);
        var golden = outputs.ReadFloat32("logits");
        if (head == ModelHead.LanguageModel)
            (logits, golden) = batch.Unmasked(logits, golden);
        report.Line(_name, variant, "logits", Distance.RelativeL2(logits, golden), OutputTolerance);
        // With gradients the loss is checked beside them.
        if (variant != "plain" || !File.Exists(At("grads.safetensors")))
            report.Line(_name, variant, "loss", Distance.Relative(Loss(pretrained, head, batch), outputs.ReadFloat32("loss")[0]), OutputTolerance);
    }

    private float Loss(PretrainedModel pretrained, ModelHead head, FixtureBatch batch)
    {
        var graph = pretrained.NewGraph(Trainables.None);
        pretrained.Model.Build(graph, new BuildOptions { Head = head, Loss = true, MaxLength = batch.Width });
        using var session = new Session(device, MemoryPlan.For(graph, Capacity(batch)), pretrained.Weights, null);
        session.Load(batch.Packed);
        session.Run(new RunSettings(1f / (head == ModelHead.LanguageModel ? batch.Packed.LabelCount : batch.Rows)));
        return session.Read(graph.Loss!)[0];
    }

    private void Gradients(PretrainedModel pretrained, ModelHead head)
    {
        using var inputs = SafeTensorsFile.Open(At("inputs.safetensors"));
        using var outputs = SafeTensorsFile.Open(At("outputs.safetensors"));
        using var goldens = SafeTensorsFile.Open(At("grads.safetensors"));
        using var model = TrainableModel.InFull(pretrained, head);
        var batch = new FixtureBatch(inputs, "", pretrained.Model, PadOf(pretrained.Model));
        using var training = new TrainingSession(model, Capacity(batch), batch.Width, new AdamWOptions(), baseDropout: false);
        var loss = training.Accumulate(batch.Packed, 1f / training.LabelCount(batch.Packed), first: true);
        report.Line(_name, "plain", "loss", Distance.Relative(loss, outputs.ReadFloat32("loss")[0]), OutputTolerance);
        Compare(report, _name, "plain", "gradients", goldens.Tensors.Keys.ToDictionary(pretrained.Model.TensorName, goldens.ReadFloat32), model.Parameters);
    }

    /// <summary>Gradients tensor by tensor; those that all but vanish are compared on the scale of the largest.</summary>
    internal static void Compare(VerifyReport report, string name, string variant, string quantity, Dictionary<string, float[]> goldens, ParameterStore parameters)
    {
        var largest = goldens.Values.Max(g => Distance.Norm(g));
        var worst = new Worst();
        foreach (var (tensor, golden) in goldens)
        {
            if (!parameters.Names.Contains(tensor))
            {
                // What nothing reads, such as LLaVA's last vision layer, is not built; the reference has zeros there.
                if (!golden.AsSpan().ContainsAnyExcept(0f))
                    continue;
                worst.Add(double.PositiveInfinity, tensor);
                continue;
            }
            var got = parameters.ReadGradient(tensor);
            var small = 1e-6 * largest;
            var norm = Distance.Norm(golden);
            // A tensor under the threshold may be off by as much as the threshold.
            var error = norm >= small
                ? Distance.RelativeL2(got, golden)
                : Distance.Norm([.. got.Zip(golden, (a, b) => a - b)]) / small * GradientTolerance;
            worst.Add(error, tensor);
        }
        foreach (var extra in parameters.Names.Where(n => !goldens.ContainsKey(n)))
            worst.Add(double.PositiveInfinity, extra);
        report.Line(name, variant, $"{quantity}[{worst.Count}]:{worst.Where}", worst.Error, GradientTolerance);
    }

    private void Selection(PretrainedModel pretrained)
    {
        using var inputs = SafeTensorsFile.Open(At("selection", "inputs.safetensors"));
        using var goldenFeatures = SafeTensorsFile.Open(At("selection", "features.safetensors"));
        using var json = JsonDocument.Parse(File.ReadAllBytes(At("selection", "selection.json")));
        var golden = json.RootElement;
        var batch = new FixtureBatch(inputs, "", pretrained.Model, PadOf(pretrained.Model));
        report.Exact(_name, "selection", "token_index", batch.PoolIndex.SequenceEqual(golden.GetProperty("token_index").EnumerateArray().Select(t => t.GetInt32())));
        var computed = Features(pretrained, batch, Representation.Indexed);
        var worst = new Worst();
        var given = new List<FeatureMatrix>();
        for (var i = 0; i < computed.Count; i++)
        {
            var wanted = goldenFeatures.ReadFloat32($"layer.{i}");
            given.Add(new FeatureMatrix(computed[i].Rows, computed[i].Columns, wanted));
            worst.Add(Distance.RelativeL2(computed[i].Values, wanted), $"layer.{i}");
        }
        report.Line(_name, "selection", $"features[{worst.Count}]:{worst.Where}", worst.Error, OutputTolerance);

        var similarities = LayerSimilarities.Compute(computed);
        Similarities("engine", similarities, golden, OutputTolerance);
        Similarities("given_features", LayerSimilarities.Compute(given), golden, 1e-9);
        var options = new SelectionOptions { Family = pretrained.Model.IsEncoder ? ModelFamily.Encoder : ModelFamily.Decoder };
        LayerSelection? Chosen(double share)
        {
            try
            {
                return LayerSelection.Select(similarities, options with { Ratio = share });
            }
            catch (InputException)
            {
                // The paper's script prints an empty mask where the rule leaves no layer; here that is an error.
                return null;
            }
        }
        var order = Chosen(1)?.Order ?? [.. Enumerable.Range(0, similarities.Layers).OrderBy(l => similarities.Pairs[l].CkaClamped)];
        report.Exact(_name, "selection", "order", order.SequenceEqual(golden.GetProperty("order").EnumerateArray().Select(t => t.GetInt32())));
        foreach (var ratio in golden.GetProperty("ratios").EnumerateArray())
        {
            var share = ratio.GetProperty("ratio").GetDouble();
            var mask = Chosen(share)?.Mask ?? new string('0', similarities.Layers);
            report.Exact(_name, "selection", $"mask@{share.ToString(System.Globalization.CultureInfo.InvariantCulture)}={mask}", mask == ratio.GetProperty("mask").GetString());
        }
        if (golden.TryGetProperty("other_rules", out var rules) && rules.TryGetProperty("mean", out var mean))
        {
            var others = LayerSimilarities.Compute(Features(pretrained, batch, Representation.Mean));
            List("engine", "cka_mean_tokens", others.Pairs.Select(p => (double?)p.CkaClamped), mean.GetProperty("cka_biased"), OutputTolerance, OutputTolerance);
        }
    }

    private void Similarities(string where, LayerSimilarities found, JsonElement golden, double tolerance)
    {
        List(where, "cka_reference", found.Pairs.Select(p => (double?)p.CkaClamped), golden.GetProperty("cka_reference"), OutputTolerance, 1e-6);
        List(where, "cka_biased", found.Pairs.Select(p => (double?)p.CkaClamped), golden.GetProperty("cka_biased"), tolerance, tolerance);
        List(where, "cka_debiased", found.Pairs.Select(p => p.CkaDebiased), golden.GetProperty("cka_debiased"), tolerance, tolerance);
        List(where, "cosine", found.Pairs.Select(p => p.Cosine), golden.GetProperty("cosine"), tolerance, tolerance);
        report.Exact(_name, "selection", $"{where}:constant_layers", found.ConstantInputs.SequenceEqual(golden.GetProperty("constant_layers").EnumerateArray().Select(t => t.GetInt32())));
    }

    /// <summary>Numbers one by one; where the golden is all but 0 the difference is absolute.</summary>
    private void List(string where, string quantity, IEnumerable<double?> found, JsonElement golden, double relative, double absolute)
    {
        var worst = new Worst();
        foreach (var (got, wanted) in found.Zip(golden.EnumerateArray()))
        {
            if (wanted.ValueKind == JsonValueKind.Null || got is null)
                worst.Add(wanted.ValueKind == JsonValueKind.Null && got is null ? 0 : double.PositiveInfinity, "null");
            else if (Math.Abs(wanted.GetDouble()) < 1e-6)
                worst.Add(Math.Abs(got.Value - wanted.GetDouble()) / absolute * relative, "0");
            else
                worst.Add(Distance.Relative(got.Value, wanted.GetDouble()), "");
        }
        report.Line(_name, "selection", $"{where}:{quantity}", worst.Error, relative);
    }

    private List<FeatureMatrix> Features(PretrainedModel pretrained, FixtureBatch batch, Representation how)
    {
        var graph = pretrained.NewGraph(Trainables.None);
        pretrained.Model.Build(graph, new BuildOptions { Represent = how, MaxLength = batch.Width });
        using var session = new Session(device, MemoryPlan.For(graph, Capacity(batch)), pretrained.Weights, null);
        session.Load(batch.Packed);
        session.Run();
        return [.. graph.Features.Select(f => new FeatureMatrix(batch.Rows, f.Shape.Columns, session.Read(f)))];
    }

    internal static BatchSize Capacity(FixtureBatch batch) => Capacity([batch]);

    /// <summary>Room for any of them.</summary>
    internal static BatchSize Capacity(IReadOnlyCollection<FixtureBatch> batches) =>
        new(batches.Max(b => b.Packed.TokenCapacity), batches.Max(b => b.Packed.SequenceCapacity), 0) { Pictures = batches.Max(b => b.Packed.PictureCapacity) };
}
