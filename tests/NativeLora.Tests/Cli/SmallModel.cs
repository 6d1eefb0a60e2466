using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Cli;

/// <summary>A small model of the fixtures, BERT if nothing else is said, with a tokenizer beside it, and rows of text that it can read.</summary>
internal sealed class SmallModel : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public SmallModel(string name = "bert-cls")
    {
        Path = Directory.CreateDirectory(_folder.File("bert-small")).FullName;
        foreach (var file in Directory.GetFiles(Shared.Path("fixtures", "models", name, "model")))
            File.Copy(file, System.IO.Path.Combine(Path, System.IO.Path.GetFileName(file)));
        File.WriteAllLines(System.IO.Path.Combine(Path, "vocab.txt"),
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. Enumerable.Range(0, 96).Select(Word)]);
        Data = _folder.Write("rows.tsv", "text\tother\tlabel\n" + string.Concat(Enumerable.Range(0, 40).Select(i =>
            $"{Text(i, 3 + (i % 7))}\t{Text(i + 17, 2 + (i % 5))}\t{(i % 3 == 0 ? "yes" : "no")}\n")));
    }

    public const int Layers = 5;

    public string Path { get; }

    public string Data { get; }

    public string Place(string name) => _folder.File(name);

    public string Write(string name, string text) => _folder.Write(name, text);

    private static string Word(int i) => $"{(char)('a' + (i / 26))}{(char)('a' + (i % 26))}";

    private static string Text(int seed, int words) => string.Join(' ', Enumerable.Range(0, words).Select(j => Word(((seed * 31) + (j * 13)) % 96)));

    public void Dispose() => _folder.Dispose();
}
