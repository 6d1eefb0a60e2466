using System.Text;

namespace NativeLora.Fuzz;

/// <summary>An input: a folder of small files by their names, of which some are what is fuzzed.</summary>
public sealed record FuzzCase(IReadOnlyDictionary<string, byte[]> Files)
{
    /// <summary>Names of the files that are changed; the others stay as they are.</summary>
    public required IReadOnlyList<string> Targets { get; init; }

    /// <summary>Bytes of the files that are changed.</summary>
    public long Bytes => Targets.Sum(t => (long)Files[t].Length);

    /// <summary>A case of one file.</summary>
    public static FuzzCase Of(string name, byte[] content) => Of([(name, content)]);

    /// <summary>A case of one text file.</summary>
    public static FuzzCase Of(string name, string content) => Of(name, Encoding.UTF8.GetBytes(content));

    /// <summary>A case in which all files are changed.</summary>
    public static FuzzCase Of(params (string Name, byte[] Content)[] files) =>
        new(files.ToDictionary(f => f.Name, f => f.Content)) { Targets = [.. files.Select(f => f.Name)] };

    /// <summary>With files beside that stay as they are.</summary>
    public FuzzCase Beside(params (string Name, byte[] Content)[] files)
    {
        var all = new Dictionary<string, byte[]>(Files);
        foreach (var (name, content) in files)
            all[name] = content;
        return this with { Files = all };
    }

    /// <summary>With another content of one file.</summary>
    public FuzzCase With(string name, byte[] content) => this with { Files = new Dictionary<string, byte[]>(Files) { [name] = content } };

    /// <summary>Writes the files.</summary>
    public void Write(string folder)
    {
        foreach (var (name, content) in Files)
        {
            var path = Path.Combine(folder, name);
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.WriteAllBytes(path, content);
        }
    }

    /// <summary>Reads a folder that <see cref="Write"/> wrote.</summary>
    public static FuzzCase Read(string folder) => Of([.. Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
        .Select(f => (Path.GetRelativePath(folder, f), File.ReadAllBytes(f)))]);
}
