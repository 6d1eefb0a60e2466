using System.Text;

namespace NativeLora.Tests.Data;

/// <summary>A file of a test, gone afterwards.</summary>
internal sealed class TemporaryFile : IDisposable
{
    public TemporaryFile(string text, string ending = ".tsv") : this(Encoding.UTF8.GetBytes(text), ending) { }

    public TemporaryFile(byte[] bytes, string ending = ".tsv")
    {
        Path = System.IO.Path.Combine(System.IO.Path.GetTempPath(), Guid.NewGuid().ToString("N") + ending);
        File.WriteAllBytes(Path, bytes);
    }

    public string Path { get; }

    public void Dispose() => File.Delete(Path);
}
