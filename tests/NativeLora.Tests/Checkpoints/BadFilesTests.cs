using NativeLora.Checkpoints;

namespace NativeLora.Tests.Checkpoints;

/// <summary>The malformed files of the reference set: each is refused with one line that names it, and the valid ones open.</summary>
public class BadFilesTests
{
    public static TheoryData<string, string, string> Rows(string kind)
    {
        var rows = new TheoryData<string, string, string>();
        if (Shared.Root is null)
        {
            // The theory is skipped, but it must have a row to be skipped by.
            rows.Add("none", "none", "none");
            return rows;
        }
        foreach (var line in File.ReadLines(Shared.Path("fixtures", "text", "bad", "EXPECTED.tsv")).Skip(1))
        {
            var fields = line.Split('\t');
            if (fields[1] == kind)
                rows.Add(fields[0], fields[2], fields[3]);
        }
        return rows;
    }

    [SharedTheory]
    [MemberData(nameof(Rows), "safetensors")]
    public void SafeTensors(string file, string what, string wanted) => Expect(file, what, wanted, path =>
    {
        using var opened = SafeTensorsFile.Open(path);
        foreach (var tensor in opened.Tensors.Values)
            Assert.Equal(tensor.Count, opened.ReadFloat32(tensor.Name).Length);
    });

    [SharedTheory]
    [MemberData(nameof(Rows), "gguf")]
    public void Gguf(string file, string what, string wanted) => Expect(file, what, wanted, path => GgufFile.Open(path).Dispose());

    [SharedTheory]
    [MemberData(nameof(Rows), "config")]
    public void Configs(string file, string what, string wanted) => Expect(file, what, wanted, path =>
    {
        var config = HfConfig.Open(path);
        config.RequireModelType("llama", "bert", "roberta");
        config.ValidateTransformer();
    });

    private static void Expect(string file, string what, string wanted, Action<string> open)
    {
        var path = Shared.Path("fixtures", "text", "bad", file);
        if (wanted == "accept")
        {
            open(path);
            return;
        }
        Assert.Equal("reject", wanted);
        var error = Assert.Throws<InputException>(() => open(path));
        Assert.DoesNotContain('\n', error.Message);
        Assert.True(error.Message.Contains(file, StringComparison.Ordinal), $"{what}: {error.Message}");
    }
}
