using NativeLora.Checkpoints;
using NativeLora.Selection;

namespace NativeLora.Tests.Selection;

public class CkaGoldenTests
{
    public static TheoryData<string, CkaForm> Pairs()
    {
        var data = new TheoryData<string, CkaForm>();
        if (Shared.Root is null)
            return data;
        foreach (var pair in Fixtures.Json(Shared.Path("fixtures", "cka", "expected.json")).EnumerateObject())
            foreach (var form in new[] { CkaForm.Gram, CkaForm.Covariance })
                data.Add(pair.Name, form);
        return data;
    }

    [SharedTheory]
    [MemberData(nameof(Pairs))]
    public void MeasuresOfPlainMatrices(string name, CkaForm form)
    {
        var expected = Fixtures.Json(Shared.Path("fixtures", "cka", "expected.json")).GetProperty(name);
        using var file = SafeTensorsFile.Open(Shared.Path("fixtures", "cka", "pairs.safetensors"));
        var (x, y) = (Fixtures.Matrix(file, $"{name}.x"), Fixtures.Matrix(file, $"{name}.y"));
        var found = LinearCka.Compare(x, y, form);

        Fixtures.Near(expected.Number("biased"), found.Cka, 1e-9);
        Fixtures.Near(expected.Number("biased_clamped"), found.CkaClamped, 1e-9);
        Fixtures.Near(expected.Number("debiased"), found.CkaDebiased, 1e-9);
        Fixtures.Near(expected.Number("cosine"), found.Cosine, 1e-9);
        Fixtures.Near(expected.Number("block_influence"), found.BlockInfluence, 1e-9);
        Fixtures.Near(expected.Number("reference_fp32"), found.CkaClamped, 1e-5);
        if (name == "tiny-1e-12")
            Assert.InRange(found.CkaClamped / expected.Number("biased_clamped")!.Value, 1 - 1e-9, 1 + 1e-9);
    }

    [SharedTheory]
    [MemberData(nameof(Pairs))]
    public void StaticFunctionsAreTheMeasures(string name, CkaForm form)
    {
        using var file = SafeTensorsFile.Open(Shared.Path("fixtures", "cka", "pairs.safetensors"));
        var (x, y) = (Fixtures.Matrix(file, $"{name}.x"), Fixtures.Matrix(file, $"{name}.y"));
        var found = LinearCka.Compare(x, y, form);
        Assert.Equal(found.Cka, LinearCka.Biased(x, y, form));
        Assert.Equal(found.CkaClamped, LinearCka.BiasedClamped(x, y, form));
        Assert.Equal(found.CkaDebiased, LinearCka.Debiased(x, y, form));
    }

    public static TheoryData<string, CkaForm> Models()
    {
        var data = new TheoryData<string, CkaForm>();
        if (Shared.Root is null)
            return data;
        foreach (var folder in Directory.GetDirectories(Shared.Path("fixtures", "models")).Order(StringComparer.Ordinal))
            foreach (var form in new[] { CkaForm.Auto, CkaForm.Gram, CkaForm.Covariance })
                data.Add(Path.GetFileName(folder), form);
        return data;
    }

    [SharedTheory]
    [MemberData(nameof(Models))]
    public void SelectionOfTinyModels(string model, CkaForm form)
    {
        var folder = Shared.Path("fixtures", "models", model, "selection");
        var expected = Fixtures.Json(Path.Combine(folder, "selection.json"));
        var found = LayerSimilarities.Compute(Fixtures.Layers(Path.Combine(folder, "features.safetensors")), form);
        var scores = found.Scores;

        Assert.Equal(expected.Integers("constant_layers"), found.ConstantInputs);
        Fixtures.Near(expected.Numbers("cka_biased"), [.. scores.CkaClamped!], 1e-9);
        Fixtures.Near(expected.Numbers("cka_debiased"), scores.CkaDebiased!, 1e-9);
        Fixtures.Near(expected.Numbers("cosine"), scores.Cosine!, 1e-9);
        var reference = expected.Numbers("cka_reference");
        for (var l = 0; l < found.Layers; l++)
            Fixtures.Near(reference[l], scores.CkaClamped![l], found.Pairs[l].ConstantX ? 1e-6 : 1e-5);

        var family = expected.GetProperty("token_rule").GetString()!.StartsWith("token 0", StringComparison.Ordinal) ? ModelFamily.Encoder : ModelFamily.Decoder;
        foreach (var ratio in expected.GetProperty("ratios").EnumerateArray())
        {
            var options = new SelectionOptions { Family = family, Ratio = ratio.GetProperty("ratio").GetDouble() };
            if (ratio.Integers("layers").Length == 0)
            {
                Assert.Throws<InputException>(() => LayerSelection.Select(found, options));
                continue;
            }
            var selection = LayerSelection.Select(found, options);
            Assert.Equal(expected.Integers("order"), selection.Order);
            Assert.Equal(ratio.Integers("layers"), selection.Selected);
            Assert.Equal(ratio.GetProperty("mask").GetString(), selection.Mask);
        }
    }

    public static TheoryData<string> References()
    {
        var data = new TheoryData<string>();
        if (Shared.Root is null)
            return data;
        foreach (var file in Directory.GetFiles(Shared.Path("reference", "selection"), "*.json", SearchOption.AllDirectories).Order(StringComparer.Ordinal))
            data.Add(Path.GetRelativePath(Shared.Path("reference", "selection"), file));
        return data;
    }

    [SharedTheory]
    [MemberData(nameof(References))]
    public void OrdersAndMasksOfRealModels(string file)
    {
        var reference = Fixtures.Json(Shared.Path("reference", "selection", file));
        var encoder = file.StartsWith("minilm", StringComparison.Ordinal);
        var lists = encoder
            ? [.. reference.GetProperty("by_n").EnumerateObject().Select(p => p.Value)]
            : reference.GetProperty("by_dtype").EnumerateObject().Select(p => p.Value).ToList();
        if (reference.TryGetProperty("with_token_type_ids_n512", out var types))
            lists.Add(types);
        Assert.NotEmpty(lists);
        foreach (var list in lists)
        {
            foreach (var (key, strategy) in new[]
            {
                ("cka_reference", SelectionStrategy.Cka), ("cka_biased", SelectionStrategy.Cka), ("cka_debiased", SelectionStrategy.CkaDebiased),
            })
            {
                var values = list.Numbers(key);
                var scores = new LayerScores { Cka = values, CkaDebiased = values };
                var options = new SelectionOptions { Strategy = strategy, Ratio = 0.5, Family = encoder ? ModelFamily.Encoder : ModelFamily.Decoder };
                var selection = LayerSelection.Select(values.Length, scores, options);
                Assert.Equal(list.Integers($"{key}_order"), selection.Order);
                Assert.Equal(list.GetProperty($"{key}_mask").GetString(), selection.Mask);
                Assert.Equal(encoder ? selection.Order[0] : null, selection.DroppedFirst);
            }
        }
    }
}
