using System.Buffers.Binary;
using System.Text;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Hub;
using NativeLora.Imaging;
using NativeLora.Selection;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Vision;

namespace NativeLora.Tests.Fuzz;

/// <summary>Headers that ask for far more memory than their files have, and names that lead out of their folder.</summary>
public sealed class HostileTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(ulong.MaxValue)]
    [InlineData(1UL << 63)]
    [InlineData(100_000_000UL)]
    public void SafeTensorsHeadersOfAnyLength(ulong length)
    {
        var bytes = new byte[64];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, length);
        var path = _folder.Write("model.safetensors", bytes);
        Cheaply(() => SafeTensorsFile.Open(path).Dispose());
    }

    [Fact]
    public void SafeTensorsWithMoreElementsThanMemory()
    {
        var header = Encoding.UTF8.GetBytes("{\"a\":{\"dtype\":\"F32\",\"shape\":[1152921504606846976,4],\"data_offsets\":[0,8]}}");
        var bytes = new byte[8 + header.Length + 8];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, header.Length);
        header.CopyTo(bytes, 8);
        var path = _folder.Write("model.safetensors", bytes);
        Cheaply(() => SafeTensorsFile.Open(path).Dispose());
    }

    [Theory]
    [InlineData(9, 1UL << 60)]
    [InlineData(9, ulong.MaxValue)]
    [InlineData(8, 1UL << 40)]
    public void GgufArraysAndStringsOfAnyLength(uint type, ulong length)
    {
        var path = _folder.Write("model.gguf", GgufBuilder.Llama().Value("x", type, to =>
        {
            if (type == 9)
                to.Write(0u);
            to.Write(length);
        }).Build());
        Cheaply(() => Checkpoint.Open(path).Dispose());
    }

    [Theory]
    [InlineData(8, 1UL << 60)]
    [InlineData(8, 50_000_000UL)]
    [InlineData(16, 1UL << 62)]
    [InlineData(16, 100_000_000UL)]
    public void GgufWithMillionsOfTensorsOrValues(int at, ulong count)
    {
        var bytes = GgufBuilder.Llama().Build();
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(at), count);
        var path = _folder.Write("model.gguf", bytes);
        Cheaply(() => Checkpoint.Open(path).Dispose());
    }

    [Fact]
    public void JsonNestedAHundredThousandDeep()
    {
        var deep = "{\"a\":" + new string('[', 100_000);
        foreach (var (name, read) in new (string, Action<string>)[]
        {
            ("config.json", p => HfConfig.Open(p)), ("adapter_config.json", p => LoraConfig.Load(p)), ("selection.json", p => SelectionReport.Load(p)),
            ("rows.jsonl", p => JsonLines.Read(p).Count()), ("tokenizer.json", p => NativeLora.Data.Tokenizers.TokenizerLoader.FromFolder(Path.GetDirectoryName(p)!)),
        })
        {
            var path = _folder.Write(name, deep);
            Cheaply(() => read(path));
        }
    }

    [Fact]
    public void StringsOfAHundredMegabytes()
    {
        // Over the 16 MiB of any config, so that nothing of it is parsed.
        var path = _folder.File("config.json");
        using (var file = File.Create(path))
        {
            file.Write("{\"model_type\": \""u8);
            file.SetLength(100 << 20);
        }
        Cheaply(() => HfConfig.Open(path));
    }

    [Theory]
    [InlineData(65535, 65535)]
    [InlineData(int.MaxValue, 1)]
    [InlineData(1, int.MaxValue)]
    [InlineData(0, 5)]
    public void PicturesOfAnySize(int width, int height)
    {
        var bytes = Png.Assemble(width, height, 8, Png.Rgb, interlaced: false, [0, 1, 2, 3]);
        Cheaply(() => PictureDecoder.Decode(bytes, "x.png"));
    }

    [Fact]
    public void PicturesThatPackTooWell()
    {
        byte[] frame = [0x2c, 0, 0, 0, 0, 2, 0, 1, 0, 0, 2, 2, 0x44, 0x0a, 0];
        byte[] gif = [.. "GIF89a"u8, 0, 32, 0, 32, 0x80, 0, 0, 10, 20, 30, 40, 50, 60, .. frame, 0x3b];
        Assert.Contains("8192 by 8192 pixels; no picture packs so well", Cheaply(() => PictureDecoder.Decode(gif, "x.gif")), StringComparison.Ordinal);
    }

    [Fact]
    public void IdsOfTokensThatOnlyCostMemory()
    {
        _folder.Write("tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1048577}, \"merges\": []}}");
        Assert.Contains("tokenizer.json", Cheaply(() => NativeLora.Data.Tokenizers.TokenizerLoader.FromFolder(_folder.Path)), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("../outside.safetensors")]
    [InlineData("../../outside.safetensors")]
    [InlineData("/outside.safetensors")]
    [InlineData("sub/../../outside.safetensors")]
    [InlineData("..\\\\outside.safetensors")]
    [InlineData("C:\\\\outside.safetensors")]
    [InlineData("C:outside.safetensors")]
    [InlineData("a\\u0000.safetensors")]
    [InlineData("a\\n.safetensors")]
    [InlineData("")]
    [InlineData(".")]
    [InlineData("..")]
    public void ShardsOutsideTheFolderAreNeverOpened(string name)
    {
        var model = Directory.CreateDirectory(_folder.File("model")).FullName;
        // It is there, whole, and holds what the index says.
        SafeTensorsWriter.Write(_folder.File("outside.safetensors"), [TensorToWrite.From("a", [1], new float[] { 1 })]);
        File.WriteAllText(Path.Combine(model, "config.json"), Models.TinyModel.Config("llama").Json);
        File.WriteAllText(Path.Combine(model, "model.safetensors.index.json"), $"{{\"weight_map\": {{\"a\": \"{name}\"}}}}");
        Assert.Contains("model.safetensors.index.json", Cheaply(() => Checkpoint.Open(model).Dispose()), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("../../../..")]
    [InlineData("..")]
    [InlineData("/etc")]
    [InlineData("main\n../../x")]
    [InlineData("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    [InlineData("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/..")]
    public async Task RevisionsOfTheCacheAreCommitsAndNoPaths(string content)
    {
        var repository = _folder.File("hub", "models--some-one--tiny.model");
        Directory.CreateDirectory(Path.Combine(repository, "refs"));
        File.WriteAllText(Path.Combine(repository, "refs", "main"), content);
        // What the path would lead to is a model.
        File.WriteAllText(_folder.File("config.json"), "{}");
        File.WriteAllText(_folder.File("model.safetensors"), "x");
        using var client = new HubClient(new HubOptions { CacheFolder = _folder.File("hub"), Offline = true });
        var message = (await Assert.ThrowsAsync<InputException>(() => client.FindAsync(HubReference.Parse("some-one/tiny.model")!, HubKind.Model))).Message;
        Assert.Contains("has no revision main", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("\"image\": \"../../../outside.png\"", "1")]
    [InlineData("\"image\": \"/outside.png\"", "1")]
    [InlineData("\"image\": \"..\"", "1")]
    [InlineData("\"image\": \"a.png\", \"split\": \"../..\"", "1")]
    [InlineData("\"image\": \"a.png\"", "../..")]
    [InlineData("\"image\": \"a.png\"", "C:")]
    public void PicturesOfADataSetLieInItsFolder(string fields, string id)
    {
        _folder.Write("outside.png", "x");
        var data = Directory.CreateDirectory(_folder.File("data")).FullName;
        File.WriteAllText(Path.Combine(data, "problems.json"), $"{{\"{id}\": {{\"question\": \"q\", \"choices\": [\"a\"], \"answer\": 0, {fields}}}}}");
        File.WriteAllText(Path.Combine(data, "pid_splits.json"), $"{{\"train\": [\"{id}\"]}}");
        Assert.Contains("problems.json", Cheaply(() => ScienceQaDataset.Load(new ScienceQaSpec { Path = data, Missing = MissingPicture.Text })), StringComparison.Ordinal);
    }

    /// <summary>It is refused, in a line, without taking memory that is worth mentioning.</summary>
    private static string Cheaply(Action read)
    {
        var before = GC.GetAllocatedBytesForCurrentThread();
        var message = Assert.Throws<InputException>(read).Message;
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 8 << 20);
        Assert.DoesNotContain(message, char.IsControl);
        return message;
    }
}
