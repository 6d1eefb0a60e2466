using NativeLora.Checkpoints;
using NativeLora.Tensors;

namespace NativeLora.Tests.Checkpoints;

public class HfConfigTests
{
    [Fact]
    public void Getters_give_values_and_fallbacks()
    {
        var config = HfConfig.Parse("""
            {"model_type":"llama","architectures":["LlamaForCausalLM"],"i":3,"f":1e-5,"b":true,"s":"x","n":null,
             "a":[1,2],"o":{"i":4},"torch_dtype":"bfloat16"}
            """);
        Assert.Equal("llama", config.ModelType);
        Assert.Equal(["LlamaForCausalLM"], config.Architectures);
        Assert.Equal(3, config.GetInt("i"));
        Assert.Equal(7, config.GetInt("n", 7));
        Assert.Equal(7, config.GetInt("absent", 7));
        Assert.Equal(1e-5f, config.GetFloat("f"));
        Assert.Equal(1e-5, config.GetDouble("f"));
        Assert.Equal(3, config.GetDouble("i"));
        Assert.True(config.GetBool("b"));
        Assert.Equal("x", config.GetString("s"));
        Assert.Equal([1, 2], config.GetInts("a"));
        Assert.Null(config.GetInts("n"));
        Assert.False(config.Has("n"));
        Assert.Equal(4, config.GetObject("o")!.GetInt("i"));
        Assert.Equal(ElementType.BF16, config.Dtype);
        Assert.Equal(ElementType.F32, HfConfig.Parse("""{"dtype":"float32"}""").Dtype);
        Assert.Null(HfConfig.Parse("""{"dtype":null}""").Dtype);
    }

    [Theory]
    [InlineData("""{"k":"8"}""", "the string '8'")]
    [InlineData("""{"k":8.0}""", "8.0")]
    [InlineData("""{"k":8e1}""", "8e1")]
    [InlineData("""{"k":3000000000}""", "3000000000")]
    [InlineData("""{"k":true}""", "true")]
    [InlineData("""{"k":[8]}""", "an array")]
    [InlineData("""{"k":0}""", "0")]
    [InlineData("""{"k":null}""", "missing")]
    [InlineData("""{}""", "missing")]
    public void Wrong_sizes_are_shown(string json, string shown)
    {
        var error = Assert.Throws<InputException>(() => HfConfig.Parse(json, "dir/config.json").GetPositiveInt("k"));
        Assert.StartsWith("dir/config.json: k is " + shown, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[]")]
    [InlineData("")]
    [InlineData("{\"a\":1,\"a\":2}")]
    [InlineData("{\"a\":\"\\ud800\"}")]
    [InlineData("{\"\\udc00\":1}")]
    [InlineData("{\"a\":NaN}")]
    public void Other_json_is_refused(string json) => Assert.Throws<InputException>(() => HfConfig.Parse(json));

    [Fact]
    public void Deep_json_is_refused()
    {
        var deep = "{\"a\":" + new string('[', 100_000) + new string(']', 100_000) + "}";
        Assert.Throws<InputException>(() => HfConfig.Parse(deep));
    }

    [Fact]
    public void Wrong_types_of_other_getters_are_refused()
    {
        var config = HfConfig.Parse("""{"x":[1,"a"],"s":"t","big":1e300,"nested":{"k":"v"},"huge":1e999}""");
        Assert.Throws<InputException>(() => config.GetBool("s"));
        Assert.Throws<InputException>(() => config.GetString("x"));
        Assert.Throws<InputException>(() => config.GetStrings("x"));
        Assert.Throws<InputException>(() => config.GetInts("x"));
        Assert.Throws<InputException>(() => config.GetObject("x"));
        Assert.Throws<InputException>(() => config.GetFloat("big"));
        Assert.Throws<InputException>(() => config.GetDouble("huge"));
        Assert.Throws<InputException>(() => config.ModelType);
        Assert.Contains("nested.k", Assert.Throws<InputException>(() => config.GetObject("nested")!.GetInt("k")).Message, StringComparison.Ordinal);
        Assert.Throws<InputException>(() => HfConfig.Parse("""{"dtype":"int8"}""").Dtype);
    }

    [Fact]
    public void Labels_are_counted_as_transformers_does()
    {
        Assert.Equal(2, HfConfig.Parse("{}").NumLabels);
        Assert.Equal(5, HfConfig.Parse("""{"num_labels":5}""").NumLabels);
        var config = HfConfig.Parse("""{"id2label":{"1":"b","0":"a","2":"c"}}""");
        Assert.Equal(3, config.NumLabels);
        Assert.Equal(["a", "b", "c"], config.Id2Label.Values);
        Assert.Throws<InputException>(() => HfConfig.Parse("""{"id2label":{"x":"b"}}""").NumLabels);
        Assert.Throws<InputException>(() => HfConfig.Parse("""{"id2label":{"0":1}}""").NumLabels);
        Assert.Throws<InputException>(() => HfConfig.Parse("""{"id2label":{"0":"a","00":"b"}}""").NumLabels);
        Assert.Throws<InputException>(() => HfConfig.Parse("""{"num_labels":0}""").NumLabels);
    }

    [Theory]
    [InlineData("""{"rope_theta":500.0,"rope_scaling":{"factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":32,"rope_type":"llama3"}}""")]
    [InlineData("""{"rope_parameters":{"rope_theta":500.0,"factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":32,"rope_type":"llama3"}}""")]
    public void Both_styles_of_rotary_settings_say_the_same(string json) =>
        Assert.Equal(new RopeParameters("llama3", 500, 8, 1, 4, 32, 1), HfConfig.Parse(json).Rope());

    [Fact]
    public void Rotary_settings_may_differ_by_kind_of_layer()
    {
        var newer = HfConfig.Parse("""
            {"rope_parameters":{"full_attention":{"factor":8.0,"rope_theta":1000000.0,"rope_type":"linear"},
             "sliding_attention":{"rope_theta":10000.0,"rope_type":"default"}}}
            """);
        var older = HfConfig.Parse("""
            {"rope_theta":1000000.0,"rope_local_base_freq":10000.0,"rope_scaling":{"factor":8.0,"rope_type":"linear"}}
            """);
        foreach (var config in new[] { newer, older })
        {
            Assert.Equal(new RopeParameters("linear", 1e6, 8, 1, 1, 0, 1), config.Rope("full_attention"));
            Assert.Equal(new RopeParameters("default", 1e4, 1, 1, 1, 0, 1), config.Rope("sliding_attention"));
        }
        Assert.Throws<InputException>(() => newer.Rope());
        var modernBert = HfConfig.Parse("""{"global_rope_theta":160000.0,"local_rope_theta":10000.0}""");
        Assert.Equal(160000, modernBert.Rope("full_attention").Theta);
        Assert.Equal(10000, modernBert.Rope("sliding_attention").Theta);
    }

    [Fact]
    public void Rotary_defaults_and_errors()
    {
        Assert.Equal(new RopeParameters("default", 10000, 1, 1, 1, 0, 1), HfConfig.Parse("""{"rope_scaling":null}""").Rope());
        Assert.Equal(5e5, HfConfig.Parse("{}").Rope(defaultTheta: 5e5).Theta);
        Assert.Equal(new RopeParameters("linear", 10000, 2, 1, 1, 0, 0.5),
            HfConfig.Parse("""{"rope_scaling":{"type":"linear","factor":2},"partial_rotary_factor":0.5}""").Rope());
        Assert.Equal("yarn", HfConfig.Parse("""{"rope_scaling":{"rope_type":"yarn","factor":2}}""").Rope().Type);
        foreach (var bad in new[]
        {
            """{"rope_theta":0}""", """{"rope_theta":"10000"}""", """{"rope_scaling":{"type":"linear"}}""",
            """{"rope_scaling":{"type":"linear","factor":-1}}""", """{"rope_scaling":[]}""", """{"rope_scaling":{"rope_type":3}}""",
            """{"rope_scaling":{"rope_type":"llama3","factor":8}}""", """{"partial_rotary_factor":2}""",
            """{"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,"original_max_position_embeddings":32}}""",
        })
            Assert.Throws<InputException>(() => HfConfig.Parse(bad).Rope());
    }

    [Theory]
    [InlineData("""{"model_type":"gpt2","n_embd":40,"n_layer":5,"n_head":4,"vocab_size":9}""", null)]
    [InlineData("""{"model_type":"gpt2","n_embd":40,"n_layer":5,"n_head":3,"vocab_size":9}""", "n_embd")]
    [InlineData("""{"model_type":"distilbert","dim":40,"n_layers":5,"n_heads":4,"vocab_size":9}""", "hidden_dim")]
    [InlineData("""{"model_type":"llava","text_config":{"model_type":"llama","hidden_size":-8}}""", "text_config.hidden_size")]
    [InlineData("""{"model_type":"llava","text_config":{"model_type":"llama"}}""", null)]
    [InlineData("""{"model_type":"gemma","hidden_size":40,"num_hidden_layers":5,"num_attention_heads":3,"head_dim":16,"intermediate_size":8,"vocab_size":9}""", null)]
    [InlineData("""{"model_type":"bert","hidden_size":40,"num_hidden_layers":10001,"num_attention_heads":4,"intermediate_size":8,"vocab_size":9}""", "num_hidden_layers")]
    public void Sizes_are_checked_under_their_family_names(string json, string? key)
    {
        var config = HfConfig.Parse(json);
        if (key is null)
            config.ValidateTransformer();
        else
            Assert.Contains(key, Assert.Throws<InputException>(config.ValidateTransformer).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Unknown_model_types_are_told_the_known()
    {
        var error = Assert.Throws<InputException>(() => HfConfig.Parse("""{"model_type":"llamma"}""").RequireModelType("llama", "bert"));
        Assert.EndsWith("supported are llama, bert", error.Message, StringComparison.Ordinal);
    }
}
