using NativeLora.Checkpoints;
using NativeLora.Tensors;

namespace NativeLora.Tests.Checkpoints;

public class CheckpointTests
{
    private const string Config = """
        {"model_type":"llama","hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":12,"vocab_size":16}
        """;

    [SharedFact]
    public void Minilm_opens()
    {
        using var checkpoint = Checkpoint.Open(Shared.Path("models", "minilm-l6"));
        Assert.Equal("bert", checkpoint.Config.ModelType);
        Assert.Equal(104, checkpoint.Tensors.Count);
        Assert.Equal(ElementType.I64, checkpoint.Tensors["embeddings.position_ids"].Type);
        Assert.Equal(103, checkpoint.Tensors.Values.Count(tensor => tensor.Type == ElementType.F16));
        Assert.Equal(new long[] { 30522, 384 }, checkpoint.Find("embeddings.word_embeddings.weight")!.Shape);
        Assert.Equal(Enumerable.Range(0, 512).Select(i => (float)i), checkpoint.ReadFloat32("embeddings.position_ids"));
        Assert.Null(checkpoint.Find("none"));
        Assert.Throws<InputException>(() => checkpoint.ReadFloat32("none"));
    }

    public static TheoryData<string> Folders()
    {
        var folders = new TheoryData<string>();
        if (Shared.Root is null)
        {
            folders.Add("none");
            return folders;
        }
        foreach (var part in new[] { "data/tiny_random", "data/stories260K", "data/tinystories_656k", "fixtures/models", "models" })
            foreach (var config in Directory.EnumerateFiles(Shared.Path(part), "config.json", SearchOption.AllDirectories).Order())
                if (Path.GetDirectoryName(config)! is var folder
                    && (File.Exists(Path.Combine(folder, "model.safetensors")) || File.Exists(Path.Combine(folder, "model.gguf"))))
                    folders.Add(Path.GetRelativePath(Shared.Root, folder));
        return folders;
    }

    [SharedTheory]
    [MemberData(nameof(Folders))]
    public void Every_model_of_the_reference_files_opens(string folder)
    {
        using var checkpoint = Checkpoint.Open(Shared.Path(folder));
        Assert.NotEmpty(checkpoint.Tensors);
        Assert.NotEmpty(checkpoint.Config.ModelType);
        foreach (var kind in new[] { "full_attention", "sliding_attention" })
            Assert.True((checkpoint.Config.GetObject("text_config") ?? checkpoint.Config).Rope(kind).Theta > 0);
    }

    [Fact]
    public void Shards_are_read_as_one()
    {
        using var folder = Sharded("""{"a":"1.safetensors","b":"2.safetensors"}""");
        using (var checkpoint = Checkpoint.Open(folder.Path))
        {
            Assert.Equal(["a", "b"], checkpoint.Tensors.Keys.Order());
            Assert.Equal([1f, 2], checkpoint.ReadFloat32("a"));
            Assert.Equal([3f], checkpoint.ReadFloat32("b"));
        }
        using var direct = Checkpoint.Open(folder.File("1.safetensors"));
        Assert.Equal(["a"], direct.Tensors.Keys);
    }

    [Theory]
    [InlineData("""{"a":"2.safetensors"}""", "does not")]
    [InlineData("""{"a":"3.safetensors"}""", "not there")]
    [InlineData("""{"a":"../1.safetensors"}""", "same folder")]
    [InlineData("""{"a":"/etc/passwd"}""", "same folder")]
    [InlineData("""{"a":"sub\\1.safetensors"}""", "same folder")]
    [InlineData("""{"a":"pytorch_model.bin"}""", "same folder")]
    [InlineData("""{"a":1}""", "not a string")]
    [InlineData("""{"a":"1.safetensors","a":"1.safetensors"}""", "JSON")]
    [InlineData("7", "weight_map")]
    public void A_wrong_index_is_refused(string map, string reason)
    {
        using var folder = Sharded(map);
        var error = Assert.Throws<InputException>(() => Checkpoint.Open(folder.Path));
        Assert.Contains(reason, error.Message, StringComparison.Ordinal);
        Assert.Contains("model.safetensors.index.json", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void What_is_missing_is_said()
    {
        using var folder = new TemporaryFolder();
        Says("no such file or folder", folder.File("none"));
        Says("has no weights", folder.Path);
        folder.Write("pytorch_model.bin", "pickle");
        Says("save_pretrained", folder.Path);
        folder.Write("adapter_config.json", "{}");
        Says("PEFT adapter", folder.Path);
        folder.Write("a.gguf", []);
        Says("cut off", folder.Path);
        folder.Write("b.gguf", []);
        Says("several", folder.Path);
        SafeTensorsWriter.Write(folder.File("model.safetensors"), []);
        Says("config.json", folder.Path);
        folder.Write("config.json", """{"model_type":"bert"}""");
        Says("hidden_size", folder.Path);
        folder.Write("model.bin", "x");
        Says("neither", folder.File("model.bin"));

        static void Says(string reason, string path)
        {
            var error = Assert.Throws<InputException>(() => Checkpoint.Open(path));
            Assert.Contains(reason, error.Message, StringComparison.Ordinal);
            Assert.DoesNotContain('\n', error.Message);
        }
    }

    [Fact]
    public void A_gguf_takes_the_config_beside_it_or_its_own_metadata()
    {
        using var folder = new TemporaryFolder();
        folder.Write("model.gguf", GgufBuilder.Llama().Floats("token_embd.weight", [16, 8], new float[128]).Build());
        using (var alone = Checkpoint.Open(folder.Path))
        {
            Assert.Equal(16, alone.Config.GetInt("vocab_size"));
            Assert.Equal(1, alone.Config.GetInt("num_key_value_heads"));
            Assert.Equal(1e-5, alone.Config.GetDouble("rms_norm_eps"));
            Assert.True(alone.Config.GetBool("tie_word_embeddings"));
            Assert.Equal(10000, alone.Config.Rope().Theta);
        }
        folder.Write("config.json", Config);
        using var beside = Checkpoint.Open(folder.Path);
        Assert.False(beside.Config.Has("rms_norm_eps"));
    }

    private static TemporaryFolder Sharded(string map)
    {
        var folder = new TemporaryFolder();
        folder.Write("config.json", Config);
        SafeTensorsWriter.Write(folder.File("1.safetensors"), [TensorToWrite.From("a", [2], new[] { 1f, 2 })]);
        SafeTensorsWriter.Write(folder.File("2.safetensors"), [TensorToWrite.From("b", [1], new[] { 3f })]);
        folder.Write("model.safetensors.index.json", $$"""{"metadata":{"total_size":12},"weight_map":{{map}}}""");
        return folder;
    }
}
